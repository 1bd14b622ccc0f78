"""The Ray actor: one process, one model, and the chunks that share it.

Owns the process-wide torch settings. Does not know the other workers or the order of the work.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch

from pipeline.cluster.journal import mark_in
from pipeline.errors import ContractError
from pipeline.masks.warm_up import warm_up
from pipeline.plan.plan import Plan
from pipeline.records import Attempt, ChunkReport
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.device import Device
from pipeline.work.weights import LoadSegmenter


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker is told, once.

    dry  do all the work, and write nothing of it
    """

    out: str
    plan: Plan
    store: StoreSettings
    load: LoadSegmenter
    threads: int
    dry: bool = False


class Worker:
    """Made empty; `start` loads the model, so that its errors reach the driver as they are and not as a dead actor."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._context: WorkerContext | None = None

    def node(self) -> str:
        """The id of the node that this worker is on, known before the model is loaded."""
        return ray.get_runtime_context().get_node_id()

    def start(self) -> None:
        """Load the model. Raises what the loader raises."""
        spec = self._spec
        _fix_torch(spec.threads)
        store = connect(spec.store, out=spec.out, dry=spec.dry)
        context = ray.get_runtime_context()
        segmenter = spec.load(store, Path(context.get_temp_dir()) / context.get_session_name() / "maskmill-weights")
        warm_up()
        device = Device(segmenter, spec.plan.settings.recipe)
        self._context = WorkerContext(out=spec.out, plan=spec.plan, store=store, generate=device.generate)

    def run(self, attempt: Attempt, journal: Any) -> ChunkReport:
        """Raises what `process_chunk` raises, DeviceError and JournalLostError."""
        if self._context is None:
            raise ContractError(f"{attempt.chunk.chunk_id} was sent to a worker that has not started")
        return process_chunk(attempt, self._context, mark=partial(mark_in, journal, attempt.key))


def _fix_torch(threads: int) -> None:
    """The same sums in the same order, whatever the machine."""
    torch.set_num_threads(threads)
    # Read by cuBLAS when the first handle is made; without it deterministic matrix products are refused.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)  # noqa: FBT003  # torch's own signature


def worker_actor(*, num_cpus: float, num_gpus: float, chunks_at_once: int) -> Any:
    """The actor class with its resources. Two chunks overlap in it: one is read, or written, while another computes.

    No restarts and no retries of Ray's own: the driver makes replacements, because a restarted actor hides why it
    died (an out-of-memory kill looks like an unavailable actor) and delays the news by seconds.
    """
    remote: Any = ray.remote  # its overloads do not know actors' options
    make = remote(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=chunks_at_once,
    )
    return make(Worker)
