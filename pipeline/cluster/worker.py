"""The Ray actor: one process, one model, and the chunks that share it.

Knows neither the other workers nor the order of the work, nor what kind of model it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray

from pipeline.cluster.journal import mark_in
from pipeline.errors import ContractError
from pipeline.plan.plan import Plan
from pipeline.plan.point_grid import PointGrid
from pipeline.plan.versions import versions_here
from pipeline.records import Attempt, ChunkReport
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.loading import LoadGenerator


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker is told, once.

    dry  do all the work, and write nothing of it
    """

    out: str
    plan: Plan
    store: StoreSettings
    load: LoadGenerator
    threads: int
    point_grid: PointGrid | None = None
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
        store = connect(spec.store, out=spec.out, dry=spec.dry)
        context = ray.get_runtime_context()
        shared = Path(context.get_temp_dir()) / context.get_session_name() / "maskmill-weights"
        generate = spec.load(store, spec.plan.settings.recipe, threads=spec.threads, shared=shared)
        versions = versions_here(spec.plan.settings.model_family)
        self._context = WorkerContext(spec.out, spec.plan, store, generate, versions, spec.point_grid)

    def run(self, attempt: Attempt, journal: Any) -> ChunkReport:
        """Raises what `process_chunk` raises, DeviceError and JournalLostError."""
        if self._context is None:
            raise ContractError(f"{attempt.chunk.chunk_id} was sent to a worker that has not started")
        return process_chunk(attempt, self._context, mark=partial(mark_in, journal, attempt.key))


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
