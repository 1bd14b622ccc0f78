"""The Ray actor: one process, one model, and the chunks that share it.

Owns the process-wide torch settings and the loading of the model. Does not know the other workers or the order of
the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import torch

from model.load import CheckpointError, checked_sha256, load_segmenter
from pipeline.errors import ConfigError, ContractError, DeniedError, NotFoundError
from pipeline.masks.segmenter import Segmenter
from pipeline.masks.warm_up import warm_up
from pipeline.records import ChunkReport
from pipeline.run.chunk import Bench, Errand, process_chunk
from pipeline.run.device import Device
from pipeline.run.journal import mark_in
from pipeline.run.plan import Plan
from pipeline.settings import ModelSettings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store

CHUNKS_IN_FLIGHT = 2
"""Per worker: one that computes, and one that is read before it or written after it."""

LoadSegmenter = Callable[[Store], Segmenter[Any]]
"""How a worker gets its model: travels to the worker pickled and is called there once."""


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker is told, once."""

    out: str
    plan: Plan
    store: StoreSettings
    load: LoadSegmenter
    threads: int


def segmenter_loader(model: ModelSettings, sha256: str) -> LoadSegmenter:
    """Loads `model` from its checkpoint in the store, or from the bundled weights, which must be those of the plan."""
    return partial(_load, model, sha256)


def _load(model: ModelSettings, sha256: str, store: Store) -> Segmenter[Any]:
    try:
        segmenter = load_segmenter(
            name=model.name, checkpoint=_read(model, store), device=model.device, precision=model.precision
        )
    except CheckpointError as error:
        raise ConfigError(_about(model, error)) from error
    if segmenter.weights_sha256 != sha256:
        here, there = segmenter.weights_sha256[:12], sha256[:12]
        raise ConfigError(
            f"model.checkpoint={model.checkpoint} has sha256 {here} on this machine and {there} where the run began; "
            "put it where all machines read the same"
        )
    return segmenter


def checkpoint_sha256(model: ModelSettings, store: Store) -> str:
    """What the weights are, checked without making a model of them. Raises ConfigError if they cannot be used."""
    try:
        return checked_sha256(model.name, _read(model, store))
    except CheckpointError as error:
        raise ConfigError(_about(model, error)) from error


def _about(model: ModelSettings, error: CheckpointError) -> str:
    return str(error) if model.checkpoint is None else f"model.checkpoint={model.checkpoint}: {error}"


def _read(model: ModelSettings, store: Store) -> bytes | None:
    """The checkpoint's bytes, None for the bundled weights."""
    if model.checkpoint is None:
        return None
    try:
        return store.read(model.checkpoint)
    except (NotFoundError, DeniedError) as error:
        raise ConfigError(f"model.checkpoint={model.checkpoint} cannot be read: {error}") from error


class Worker:
    """Made empty; `start` loads, so that what goes wrong there comes back as itself and not as a dead actor."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._bench: Bench | None = None

    def node(self) -> str:
        """The id of the node that this is, known before anything can go wrong."""
        return ray.get_runtime_context().get_node_id()

    def start(self) -> None:
        """Load the model. Raises what the loader raises."""
        spec = self._spec
        _fix_torch(spec.threads)
        store = connect(spec.store)
        segmenter = spec.load(store)
        warm_up()
        device = Device(segmenter, spec.plan.shape.recipe)
        self._bench = Bench(out=spec.out, plan=spec.plan, store=store, generate=device.generate)

    def run(self, errand: Errand, journal: Any) -> ChunkReport:
        """Raises what `process_chunk` raises, DeviceError and JournalLostError."""
        if self._bench is None:
            raise ContractError(f"{errand.chunk.chunk_id} was sent to a worker that has not started")
        return process_chunk(errand, self._bench, mark=partial(mark_in, journal, errand.key))


def _fix_torch(threads: int) -> None:
    """The same sums in the same order, whatever the machine."""
    torch.set_num_threads(threads)
    # Read by cuBLAS when the first handle is made; without it deterministic matrix products are refused.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)  # noqa: FBT003  # torch's own signature


def worker_actor(*, num_cpus: float, num_gpus: float) -> Any:
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
        max_concurrency=CHUNKS_IN_FLIGHT,
    )
    return make(Worker)
