"""How a run stands, as Prometheus series on the metrics port of every Ray node.

Owns the names, units and labels; docs/cluster.md and the Grafana dashboard repeat them, which a test holds. Counters
count the work of this driver's workers, when a chunk's report comes or an attempt fails. Ray puts `ray_` before every
name, and labels of its own (session, node, process) beside ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ray.util import metrics as typed_metrics

from pipeline.progress import Standing
from pipeline.records import ChunkReport, Stage

ray_metrics: Any = typed_metrics  # its annotations are partial
log = logging.getLogger(__name__)


class Kind(StrEnum):
    COUNTER = "Counter"
    GAUGE = "Gauge"


class Failure(StrEnum):
    """Why an attempt at a chunk failed."""

    WORKER_DIED = "worker_died"
    HUNG = "hung"
    OUT_OF_MEMORY = "out_of_memory"
    """The machine's own memory; Ray ended the worker."""
    NODE_LOST = "node_lost"
    DEVICE = "device"
    """It failed, or is too small; the worker was replaced."""
    STORAGE = "storage"
    ERROR = "error"
    """The worker lives and said what was wrong."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`labels` come beside `run`, which is the output's place and on all of them."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


IMAGES = Metric("maskmill_images_total", Kind.COUNTER, "Images committed, by the status of their row.", ("status",))
MASKS = Metric("maskmill_masks_total", Kind.COUNTER, "Masks committed.")
CHUNKS = Metric(
    "maskmill_chunks_total", Kind.COUNTER, "Chunks done, by who committed the part first: us or others.", ("winner",)
)
FAILURES = Metric("maskmill_failed_attempts_total", Kind.COUNTER, "Attempts at chunks that failed.", ("reason",))
READ = Metric("maskmill_read_bytes_total", Kind.COUNTER, "Bytes of images read.")
WRITTEN = Metric("maskmill_written_bytes_total", Kind.COUNTER, "Bytes of parts written.")
STAGE_SECONDS = Metric(
    "maskmill_stage_seconds_total", Kind.COUNTER, "Seconds of workers by stage; stages overlap.", ("stage",)
)
BUSY = Metric("maskmill_device_busy_seconds_total", Kind.COUNTER, "Seconds of workers with their device at work.")
PLANNED = Metric("maskmill_planned_images", Kind.GAUGE, "Images of the whole run.")
DONE = Metric("maskmill_done_images", Kind.GAUGE, "Images done by now, those of unfinished chunks included.")
WAITING = Metric("maskmill_waiting_chunks", Kind.GAUGE, "Chunks that no worker has: the queue.")
IN_FLIGHT = Metric("maskmill_in_flight_chunks", Kind.GAUGE, "Chunks that workers have.")
GIVEN_UP = Metric("maskmill_given_up_chunks", Kind.GAUGE, "Chunks that this driver does not try again.")
WORKERS = Metric("maskmill_workers", Kind.GAUGE, "Workers, ready or waiting for room and loading.", ("state",))

CATALOGUE = (
    *(IMAGES, MASKS, CHUNKS, FAILURES, READ, WRITTEN, STAGE_SECONDS, BUSY),
    *(PLANNED, DONE, WAITING, IN_FLIGHT, GIVEN_UP, WORKERS),
)


class RunMetrics:
    """The driver's. Nothing here raises, because no run should end for a metric.

    run   the place of the output: the label by which runs of one cluster are told apart
    make  a series of Ray's from a Metric
    """

    def __init__(self, run: str, *, make: Callable[[Metric], Any] | None = None) -> None:
        self._run = run
        self._make = make or _series
        self._series: dict[str, Any] = {}

    def show(self, standing: Standing, *, waiting: int, in_flight: int, given_up: int) -> None:
        """Where the run is now; the last three are numbers of chunks."""
        self._set(PLANNED, standing.images_total)
        self._set(DONE, standing.images_done)
        self._set(WAITING, waiting)
        self._set(IN_FLIGHT, in_flight)
        self._set(GIVEN_UP, given_up)
        self._set(WORKERS, standing.workers_ready, state="ready")
        self._set(WORKERS, standing.workers_wanted - standing.workers_ready, state="starting")

    def finished(self, report: ChunkReport) -> None:
        """A worker has done a chunk. What others had committed before is counted as work, not as images."""
        self._add(CHUNKS, 1, winner="us" if report.won else "others")
        if report.won:
            for status, images in report.images.items():
                self._add(IMAGES, images, status=status)
            self._add(MASKS, report.masks)
        self._add(READ, report.bytes_read)
        self._add(WRITTEN, report.bytes_written)
        for stage, seconds in report.seconds.items():
            self._add(STAGE_SECONDS, seconds, stage=stage)
        self._add(BUSY, report.seconds.get(Stage.COMPUTE, 0.0))

    def failed(self, reason: Failure, attempts: int = 1) -> None:
        """This number of attempts at chunks failed."""
        self._add(FAILURES, attempts, reason=reason)

    def _add(self, metric: Metric, value: float, **labels: str) -> None:
        if value > 0:  # Ray refuses to add nothing
            self._record(metric, "inc", value, labels)

    def _set(self, metric: Metric, value: float, **labels: str) -> None:
        self._record(metric, "set", value, labels)

    def _record(self, metric: Metric, method: str, value: float, labels: dict[str, str]) -> None:
        try:
            if metric.name not in self._series:
                self._series[metric.name] = self._make(metric)
            getattr(self._series[metric.name], method)(value, tags={"run": self._run, **labels})
        except Exception as error:  # noqa: BLE001  # whatever it is, the run is worth more
            log.debug("%s is not recorded: %s", metric.name, error)


def _series(metric: Metric) -> Any:
    """raises  whatever Ray finds wrong with the name"""
    return getattr(ray_metrics, metric.kind)(metric.name, description=metric.help, tag_keys=("run", *metric.labels))
