"""The finish of a run without a cluster, a full recount of it, and what its driver writes down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from pipeline.output.finish import count_parts
from pipeline.output.manifest import Manifest
from pipeline.output.summaries import Summary, kept, read_summaries, summary_of
from pipeline.records import ChunkReport
from pipeline.settings import StoreSettings
from pipeline.storage.store import ObjectInfo, Store
from pipeline.work.chunk import WorkerContext
from tests.fakes_run import Notes, ReadsNoted


def finish(
    context: WorkerContext, store: Store, reports: Sequence[ChunkReport] = (), *, notes: Notes | None = None
) -> Manifest:
    return count_parts(context.plan, out=context.out, store=store, progress=notes or Notes(), reports=reports)


def recount(context: WorkerContext) -> Manifest:
    """Every byte read: nothing is reported, and what is written down is out of sight."""
    return count_parts(context.plan, out=context.out, store=NoSummaries(StoreSettings()), progress=Notes())


class NoSummaries(ReadsNoted):
    def list(
        self, uri: str, *, pattern: Sequence[str] = (), unreadable: Callable[[str], object] | None = None
    ) -> Iterator[ObjectInfo]:
        return iter(()) if uri.endswith("/summaries") else super().list(uri, pattern=pattern, unreadable=unreadable)

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        return None if "/summaries/" in uri else super().put_if_absent(uri, data)


def write_down(context: WorkerContext, reports: Sequence[ChunkReport]) -> None:
    """As the driver does whose workers reported."""
    with kept(reports, partial(summary_of, plan=context.plan), context.plan, out=context.out, store=context.store):
        pass


def summaries_of(context: WorkerContext) -> list[Summary]:
    return read_summaries(context.plan, out=context.out, store=context.store)


def path_of(context: WorkerContext, report: ChunkReport) -> Path:
    (path,) = (Path(context.out) / "data").glob(f"{report.chunk_id}.*")
    return path
