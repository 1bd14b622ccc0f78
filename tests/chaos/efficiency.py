"""What the driver costs: many workers that do nothing but sleep and tell where they are, and one driver.

To the driver they are actors like the real ones, called in the same way. They have no model and no torch, and several
share a process, so that 64 of them fit one small machine.
"""

from __future__ import annotations

import time
from itertools import cycle
from typing import Any

import pytest

from pipeline.cluster.ledger import Ledger
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard
from pipeline.progress import Event, Standing
from pipeline.records import Attempt, ChunkReport, Funnel, Shard
from pipeline.settings import RunSettings, Settings

SLOTS = 64
PROCESSES = 8
CHUNK_S = 2.0
IMAGES_PER_CHUNK = 4
CHUNKS_EACH = 15
LEAST = 0.95


class Sleeper:
    """Several workers; each does one chunk at a time, CHUNK_S each, with the marks of a real one."""

    def node(self) -> str:
        import ray

        return ray.get_runtime_context().get_node_id()

    def start(self) -> None:
        return

    def run(self, attempt: Attempt, journal: Any) -> ChunkReport:
        from pipeline.cluster.journal import mark_in

        begun = time.monotonic()
        for ordinal in range(attempt.chunk.start, attempt.chunk.stop):
            mark_in(journal, attempt.key, ordinal)
            done = (ordinal - attempt.chunk.start + 1) / IMAGES_PER_CHUNK
            time.sleep(max(0.0, begun + CHUNK_S * done - time.monotonic()))
        return ChunkReport(attempt.chunk.chunk_id, won=True, images={"ok": 4}, masks=0, funnel=Funnel())


class Sleepers:
    """What `worker_actor` gives: asked for a worker, it names one of the processes."""

    def __init__(self) -> None:
        import ray

        remote: Any = ray.remote
        make = remote(num_cpus=1, max_concurrency=SLOTS // PROCESSES)
        self._next = cycle([make(Sleeper).remote() for _ in range(PROCESSES)])

    def options(self, **_where: object) -> Sleepers:
        return self

    def remote(self, _spec: object) -> Any:
        return next(self._next)


class Clock:
    """A Progress that knows when all workers were ready."""

    def __init__(self) -> None:
        self.all_ready = 0.0

    def show(self, standing: Standing) -> None:
        if not self.all_ready and standing.workers_ready == SLOTS:
            self.all_ready, self.images_then = time.monotonic(), standing.images_done

    def show_fetch(self, name: str, done: int, size: int) -> None:
        return

    def show_finish(self, counted: int, parts: int) -> None:
        return

    def say(self, sentence: str, event: Event = Event.NOTE, *, chunk: str = "", node: str = "") -> None:
        raise AssertionError(sentence)

    def close(self) -> None:
        return


def efficiency() -> tuple[list[str], list[str]]:
    """Lines of a report, and what is wrong."""
    import ray

    from pipeline.cluster.crew import WorkerKind
    from pipeline.cluster.driver import Driver
    from pipeline.cluster.metrics import RunMetrics
    from pipeline.signals import StopFlag

    init: Any = ray.init
    init(
        address="local",
        num_cpus=PROCESSES,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
    )
    settings = RunSettings(max_workers=SLOTS, images_per_chunk=IMAGES_PER_CHUNK)
    plan = _plan(settings)
    workers = WorkerKind(lambda **_resources: Sleepers(), spec=None, device="cpu")
    ledger = Ledger.open(plan, committed=(), attempts_allowed=1, from_the_start=True)
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.kill", lambda _actor: None)  # it would take the others of the process along
        driver = Driver(ledger, workers, settings, committed_now=set, progress=clock, metrics=RunMetrics("o"))
        cpu = time.process_time()
        driver.run(StopFlag())
        ended, cpu = time.monotonic(), time.process_time() - cpu
    ray.shutdown()
    wall = ended - clock.all_ready
    chunks = plan.chunk_count - clock.images_then / IMAGES_PER_CHUNK
    share = chunks * CHUNK_S / (SLOTS * wall)
    lines = [
        f"chaos efficiency: {share:.1%} with {SLOTS} workers at {CHUNK_S:g} s a chunk, {LEAST:.0%} is expected",
        f"  {chunks:.0f} chunks in {wall:.1f} s once all were ready; the driver took {cpu:.1f} s of a core in all",
    ]
    return lines, [f"efficiency is {share:.1%}"] if share < LEAST else []


def _plan(settings: RunSettings) -> Plan:
    output_settings = OutputSettings.of(Settings(source="s", out="o", run=settings), weights_sha256="w")
    count = SLOTS * CHUNKS_EACH * IMAGES_PER_CHUNK
    shard = Shard(name="a", uri="/a", kind="folder", member_count=count, ignored_count=0)
    return Plan(settings=output_settings, shards=(PlannedShard(shard=shard, first_ordinal=0, members_sha256=("m",)),))
