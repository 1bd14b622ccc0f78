"""What a run would take, reckoned from a few of its images that were tried, and how that is told.

Owns the arithmetic and the wording. The images are tried by dry_run.py.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.progress import duration
from pipeline.records import ChunkReport, Stage, Status
from pipeline.texts import counted, printable

CONFIDENCE_95 = 1.96
"""Standard errors of the normal distribution."""


@dataclass(frozen=True)
class ToDo:
    """What is left of a run.

    reads, writes  of the images, the member index and the parts, those that are requests to an object store
    """

    images_planned: int
    images: int
    chunks: int
    reads: int
    writes: int


@dataclass(frozen=True)
class Estimate:
    """The cost of `to_do`, of which some images were tried.

    reports       of what was tried, in pieces
    worked_s      seconds for which workers were at it, summed over them
    start_s       seconds until a worker was ready
    workers       that would work on the whole
    on            what a worker has: a GPU, or CPU cores
    empty_part    bytes of a part without rows
    """

    to_do: ToDo
    reports: tuple[ChunkReport, ...]
    worked_s: float
    start_s: float
    workers: int
    on: str
    empty_part: int
    price_per_hour: float | None

    @property
    def statuses(self) -> Counter[str]:
        """Of the images that were tried."""
        counts: Counter[str] = Counter()
        for report in self.reports:
            counts.update(report.images)
        return counts

    @property
    def tried(self) -> int:
        return self.statuses.total()

    @property
    def masks_per_image(self) -> float:
        """Of the images that did not fail."""
        return sum(report.masks for report in self.reports) / max(1, self.statuses[Status.OK])

    @property
    def images_per_s(self) -> float:
        """With all workers at hand."""
        return self.workers * self.tried / max(self.worked_s, 1e-9)

    @property
    def spread(self) -> tuple[float, float] | None:
        """The 95 % interval of `images_per_s`, from how unlike each other the pieces were; None if one was tried."""
        seconds = [_seconds_per_image(report) for report in self.reports]
        if len(seconds) < 2 or not statistics.fmean(seconds):
            return None
        error = statistics.stdev(seconds) / math.sqrt(len(seconds)) / statistics.fmean(seconds)
        return self.images_per_s / (1 + CONFIDENCE_95 * error), self.images_per_s / max(1e-9, 1 - CONFIDENCE_95 * error)

    @property
    def work_s(self) -> float:
        """Wall seconds of the workers' part."""
        return self.to_do.images / self.images_per_s

    @property
    def device_hours(self) -> float:
        return self.to_do.images * self.worked_s / self.tried / 3600

    @property
    def output_bytes(self) -> int:
        rows = sum(report.bytes_written - self.empty_part for report in self.reports)
        return round(self.to_do.chunks * self.empty_part + self.to_do.images * rows / self.tried)


def _seconds_per_image(report: ChunkReport) -> float:
    spent = report.seconds.get(Stage.COMPUTE, 0.0) + report.seconds.get(Stage.RLE, 0.0)
    return spent / max(1, sum(report.images.values()))


def estimate_text(estimate: Estimate) -> str:
    """Several lines, fit for a terminal, no line break at the end."""
    return "\n".join(map(printable, _lines(estimate)))


def _lines(estimate: Estimate) -> Iterator[str]:
    to_do, workers = estimate.to_do, counted(estimate.workers, "worker")
    tried = f"{estimate.tried:,} of {counted(to_do.images, 'image')} tried"
    yield f"Maskmill: dry run, {tried}; nothing but the plan was written"
    done = to_do.images_planned - to_do.images
    more = f", {counted(done, 'image')} done" if done else ""
    yield f"  left     {counted(to_do.images, 'image')} in {counted(to_do.chunks, 'chunk')}{more}"
    yield f"  tried    {_tried(estimate)}, {estimate.masks_per_image:.1f} masks per image"
    spread = estimate.spread
    between = f" ({spread[0]:.2f} to {spread[1]:.2f} with 95 % confidence)" if spread else ""
    yield f"  speed    {estimate.images_per_s:.2f} images/s{between} with the {workers} at hand, each on {estimate.on}"
    yield f"  time     {duration(estimate.start_s + estimate.work_s)}, of which {duration(estimate.start_s)} to start"
    yield f"  device   {estimate.device_hours:,.2f} device-hours"
    yield f"  output   {_bytes(estimate.output_bytes)} in {counted(to_do.chunks, 'part')}"
    if to_do.reads or to_do.writes:
        yield f"  requests {counted(to_do.reads, 'read')} and {counted(to_do.writes, 'write')} of objects"
    if estimate.price_per_hour is not None:
        price = estimate.device_hours * estimate.price_per_hour
        yield f"  price    {price:,.2f} at run.price_per_hour={estimate.price_per_hour:g}"
    yield "  next     the same command without run.dry=true takes up this plan"


def _tried(estimate: Estimate) -> str:
    statuses = estimate.statuses
    failed = {status: count for status, count in statuses.most_common() if status != Status.OK}
    reasons = f" ({', '.join(f'{count} {status}' for status, count in failed.items())})" if failed else ""
    return f"{statuses[Status.OK]:,} ok, {sum(failed.values()):,} failed{reasons}"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
