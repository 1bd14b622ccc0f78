"""What the driver tells Prometheus, with series that remember."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.cluster.metrics import (
    BUSY,
    CHUNKS,
    FAILURES,
    IMAGES,
    MASKS,
    READ,
    STAGE_SECONDS,
    WAITING,
    WORKERS,
    WRITTEN,
    Failure,
    Metric,
    RunMetrics,
)
from pipeline.progress import Standing
from pipeline.records import ChunkReport, Funnel, Stage

REPORT = ChunkReport(
    chunk_id="a-00000",
    won=True,
    images={"ok": 3, "unreadable": 1},
    masks=50,
    funnel=Funnel(),
    seconds={Stage.READ: 1.0, Stage.COMPUTE: 7.0},
    bytes_read=1000,
    bytes_written=100,
)
STANDING = Standing(images_done=5, images_total=20, counted=5, masks=50, failed=0, workers_ready=1, workers_wanted=3)


@dataclass
class Remembering:
    """Sums of what is added and the last of what is set, by metric and by labels but for `run`."""

    values: defaultdict[str, dict[tuple[str, ...], float]] = field(default_factory=lambda: defaultdict(dict))
    runs: set[str] = field(default_factory=set[str])

    def make(self, metric: Metric) -> Any:
        return _Series(self, metric)


@dataclass
class _Series:
    memory: Remembering
    metric: Metric

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0, "Ray refuses to add nothing"
        before = self.memory.values[self.metric.name].get(self._labels(tags), 0.0)
        self.set(before + value, tags)

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.memory.values[self.metric.name][self._labels(tags)] = value
        self.memory.runs.add(tags["run"])

    def _labels(self, tags: dict[str, str]) -> tuple[str, ...]:
        assert set(tags) == {"run", *self.metric.labels}
        return tuple(tags[label] for label in self.metric.labels)


def test_reports_add_up_by_label():
    """Two chunks; the second one was committed by another driver first, who counts its images."""
    memory = Remembering()
    metrics = RunMetrics("s3://b/out", make=memory.make)
    metrics.finished(REPORT)
    metrics.finished(replace(REPORT, won=False))
    values = memory.values
    assert values[CHUNKS.name] == {("us",): 1, ("others",): 1}
    assert values[IMAGES.name] == {("ok",): 3, ("unreadable",): 1}
    assert values[MASKS.name] == {(): 50}
    assert values[READ.name] == {(): 2000}
    assert values[WRITTEN.name] == {(): 200}
    assert values[STAGE_SECONDS.name] == {("read",): 2.0, (Stage.COMPUTE,): 14.0}
    assert values[BUSY.name] == {(): 14.0}
    assert memory.runs == {"s3://b/out"}


def test_standing_is_what_it_is_now_and_failures_have_reasons():
    """A gauge of yesterday's queue would keep somebody awake."""
    memory = Remembering()
    metrics = RunMetrics("out", make=memory.make)
    metrics.show(STANDING, waiting=9, in_flight=2, given_up=0)
    metrics.show(replace(STANDING, workers_ready=3), waiting=4, in_flight=2, given_up=1)
    assert memory.values[WAITING.name] == {(): 4}
    assert memory.values[WORKERS.name] == {("ready",): 3, ("starting",): 0}
    metrics.failed(Failure.HUNG)
    metrics.failed(Failure.HUNG)
    assert memory.values[FAILURES.name] == {("hung",): 2}
    metrics.failed(Failure.NODE_LOST, 3)
    metrics.failed(Failure.WORKER_DIED, 0)
    assert memory.values[FAILURES.name] == {("hung",): 2, ("node_lost",): 3}, "a node had three, an idle worker none"


def test_metrics_that_fail_are_no_failure_of_the_run():
    """Ray refuses names, values and tags with exceptions of its own."""

    def refuse(_metric: Metric) -> Any:
        raise ValueError("no such thing")

    metrics = RunMetrics("out", make=refuse)
    metrics.show(STANDING, waiting=1, in_flight=1, given_up=0)
    metrics.finished(REPORT)
    metrics.failed(Failure.ERROR)
