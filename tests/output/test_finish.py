"""The finish: what it believes without reading, what it reads, and what it says of either."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.signals import StopFlag
from pipeline.errors import StorageError
from pipeline.output.finish import chunks_with_failures, count_parts
from pipeline.output.manifest import Manifest, find_manifest, manifest_to_json, publish
from pipeline.output.summaries import Summary, kept, read_summaries, summary_of
from pipeline.plan.layout import manifest_uri
from pipeline.records import Attempt, ChunkReport
from pipeline.settings import Format, Settings, StoreSettings
from pipeline.storage.parts import read_part, write_part
from pipeline.storage.store import ObjectInfo, Store
from pipeline.work.chunk import WorkerContext, process_chunk
from tests.fakes_run import Notes, ReadsNoted, drawn_image, write_folder
from tests.small_runs import context_of, parts_of, small_run, work


@pytest.fixture
def context(settings: Settings, store: Store) -> WorkerContext:
    """A run of five parts, of which none is there yet."""
    return context_of(settings, store)


@pytest.fixture
def reads() -> ReadsNoted:
    return ReadsNoted(StoreSettings(retry_deadline_s=1.0))


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


def write_down_summaries(context: WorkerContext, *summaries: Summary) -> None:
    with kept(summaries, lambda summary: summary, context.plan, out=context.out, store=context.store):
        pass


def summaries_of(context: WorkerContext) -> list[Summary]:
    return read_summaries(context.plan, out=context.out, store=context.store)


def path_of(context: WorkerContext, report: ChunkReport) -> Path:
    (path,) = (Path(context.out) / "data").glob(f"{report.chunk_id}.*")
    return path


@pytest.fixture(params=list(Format))
def with_failures(request: pytest.FixtureRequest, tmp_path: Path, store: Store) -> WorkerContext:
    """A run of two parts in either format, with images that cannot be decoded and one that is too large."""
    images = {"a.png": drawn_image(1), "b.png": b"no image", "c.png": b"", "d.png": drawn_image(2)}
    source = write_folder(tmp_path / "own", images)
    settings = replace(small_run(source, tmp_path / "out"), format=request.param)
    least = min(read_size(images["a.png"]), read_size(images["d.png"]))
    return context_of(replace(settings, run=replace(settings.run, max_pixels=least)), store)


def read_size(data: bytes) -> int:
    """Pixels of a PNG, by its header."""
    return int.from_bytes(data[16:20]) * int.from_bytes(data[20:24])


def test_what_own_workers_reported_is_not_read_and_equals_a_full_recount(
    with_failures: WorkerContext, reads: ReadsNoted
):
    """At SA-1B's size the parts are 240 GB, and the manifest must be the same to the byte."""
    reports = work(with_failures)
    manifest = finish(with_failures, reads, reports)
    assert reads.parts_read == []
    assert manifest_to_json(manifest) == manifest_to_json(recount(with_failures))
    assert manifest.failures == {"unreadable": 2, "too_large": 1}
    assert manifest.masks == sum(report.masks for report in reports) > 0


def test_what_other_drivers_wrote_down_is_not_read_and_equals_a_full_recount(
    with_failures: WorkerContext, reads: ReadsNoted
):
    """A driver may be killed after the last part and before the manifest."""
    write_down(with_failures, work(with_failures))
    manifest = finish(with_failures, reads)
    assert reads.parts_read == []
    assert manifest_to_json(manifest) == manifest_to_json(recount(with_failures))


def test_the_successor_of_a_killed_driver_reads_what_that_did_not_write_down(context: WorkerContext, reads: ReadsNoted):
    """Its last seconds, and what its workers committed after it was gone."""
    reports = work(context)
    write_down(context, reports[:2])
    notes = Notes()
    manifest = finish(context, reads, reports[4:], notes=notes)
    assert sorted(reads.parts_read) == sorted(path_of(context, report).name for report in reports[2:4])
    assert manifest == recount(context)
    assert notes.finishes == [(3, 5), (4, 5), (5, 5)]
    assert notes.sentences == []


def test_two_drivers_share_what_they_know_and_publish_one_manifest(context: WorkerContext, reads: ReadsNoted):
    """Each has done some of the chunks, and one has done a chunk that the other was first to commit."""
    chunks = list(context.plan.chunks())
    first = [process_chunk(Attempt(chunk), context) for chunk in chunks[:3]]
    second = [process_chunk(Attempt(chunk), context) for chunk in chunks[2:]]
    assert [report.won for report in second] == [False, True, True]
    write_down(context, first)
    write_down(context, second)
    for reports in (first, second):
        publish(finish(context, reads, reports), out=context.out, store=context.store)
    assert reads.parts_read == []
    assert find_manifest(context.plan, out=context.out, store=context.store) == recount(context)
    assert context.store.read(manifest_uri(context.out)) == manifest_to_json(recount(context))


def rewritten(path: Path, *, drop_masks: int) -> bytes:
    part = read_part(path.read_bytes(), format=Format.PARQUET)
    first = replace(part.rows[0], masks=part.rows[0].masks[drop_masks:])
    return write_part([first, *part.rows[1:]], format=Format.PARQUET, metadata=part.metadata)


def test_a_part_of_another_size_than_reported_is_found_and_read(context: WorkerContext, reads: ReadsNoted):
    """A worker that outlives its driver can do this on a store that ignores the condition."""
    reports = work(context)
    path = path_of(context, reports[1])
    path.write_bytes(rewritten(path, drop_masks=1))
    notes = Notes()
    manifest = finish(context, reads, reports, notes=notes)
    assert reads.parts_read == [path.name]
    assert manifest.masks == sum(report.masks for report in reports) - 1
    assert manifest == recount(context)
    (said,) = notes.sentences
    assert "1 parts are not as their writers left them" in said
    assert path.name in said


def test_a_part_that_is_none_or_is_gone_is_an_error_whatever_was_reported(context: WorkerContext):
    """No report may cover up for bytes that are no part of this run."""
    reports = work(context)
    path = path_of(context, reports[1])
    path.write_bytes(b"x" * reports[1].bytes_written)
    with pytest.raises(StorageError, match=rf"{path.name} is damaged"):
        finish(context, context.store, reports)
    path.unlink()
    with pytest.raises(StorageError, match=rf"{path.name} does not exist"):
        finish(context, context.store, reports)


def test_a_part_replaced_by_as_many_bytes_is_found_by_the_etag_of_the_store(
    source: Path, s3_endpoint: str, s3_client: Any, s3_bucket: str
):
    """There the size says nothing, and nobody's clock is asked."""
    store = ReadsNoted(StoreSettings(endpoint_url=s3_endpoint, retry_deadline_s=5.0))
    context = context_of(replace(small_run(source, Path("out")), out=f"s3://{s3_bucket}/out"), store)
    reports = work(context)
    write_down(context, reports)
    assert finish(context, store, reports) == finish(context, store)
    assert store.parts_read == []
    name = f"{reports[2].chunk_id}.parquet"
    whole = store.read(f"{context.out}/data/{name}")
    flipped = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    s3_client.put_object(Bucket=s3_bucket, Key=f"out/data/{name}", Body=flipped)
    for reported in (reports, ()):
        with pytest.raises(StorageError, match=rf"{name} is damaged"):
            finish(context, store, reported)


LIES = {
    "size": lambda part: replace(part, size=part.size + 1),
    "rows": lambda part: replace(part, rows=part.rows + 1, masks=0),
}


@pytest.mark.parametrize("what", list(LIES))
def test_a_summary_that_lies_is_not_believed(context: WorkerContext, reads: ReadsNoted, what: str):
    """It is a cache: what it says counts only where the listing and the plan say the same."""
    truths = [summary_of(report, context.plan) for report in work(context)]
    first, *rest = [summary for summary in truths if summary is not None]
    write_down_summaries(context, replace(first, part=LIES[what](first.part)), *rest)
    assert finish(context, reads) == recount(context)
    assert reads.parts_read == [first.part.name]


def test_two_summaries_that_disagree_are_both_not_believed(context: WorkerContext, reads: ReadsNoted):
    """One of them lies, and nothing says which."""
    truths = [summary_of(report, context.plan) for report in work(context)]
    first, *rest = [summary for summary in truths if summary is not None]
    write_down_summaries(context, first, *rest)
    write_down_summaries(context, replace(first, part=replace(first.part, masks=first.part.masks + 1)))
    assert finish(context, reads) == recount(context)
    assert reads.parts_read == [first.part.name]


def test_damaged_and_foreign_summaries_are_left_out(context: WorkerContext, reads: ReadsNoted):
    """Every one of their bytes is held by the name; a flipped digit of a checksum would else reach the manifest."""
    write_down(context, work(context))
    (path,) = (Path(context.out) / "_job" / "summaries").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"masks":', b'"masks":1', 1))
    (path.parent / "notes.txt").write_bytes(b"what is this?")
    assert summaries_of(context) == []
    assert finish(context, reads) == recount(context)
    assert len(reads.parts_read) == 5


def test_without_an_etag_a_report_is_not_believed(context: WorkerContext, reads: ReadsNoted):
    """A size alone says little of a part: all of a store without etags are read, as ever."""
    reports = [replace(report, etag="") for report in work(context)]
    assert finish(context, reads, reports) == recount(context)
    assert len(reads.parts_read) == 5


class Stuck(ReadsNoted):
    """Answers two reads and no other: the third one interrupts after `two_counted`, and none ends before `never`."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings)
        self.two_counted, self.never = threading.Event(), threading.Event()
        self._numbers = itertools.count(1)

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        number = next(self._numbers) if "/data/" in uri else 0
        if number > 2:
            self.two_counted.wait(20)
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            self.never.wait(60)
        return super().read(uri, offset=offset, length=length, etag=etag, limit=limit)


class Counted(Notes):
    def __init__(self, two_counted: threading.Event) -> None:
        super().__init__()
        self._two_counted = two_counted

    def show_finish(self, counted: int, parts: int) -> None:
        super().show_finish(counted, parts)
        if counted == 2:
            self._two_counted.set()


def test_a_signal_ends_the_finish_at_once_and_the_next_one_goes_on_from_there(
    context: WorkerContext, reads: ReadsNoted
):
    """Even while a store keeps reads waiting; what was read by then is not read again."""
    work(context)
    store, stop = Stuck(StoreSettings()), StopFlag()
    try:
        with pytest.raises(KeyboardInterrupt), stop.interrupting():
            finish(context, store, notes=Counted(store.two_counted))
    finally:
        store.never.set()
    known = {summary.part.name for summary in summaries_of(context)}
    assert len(known) == 2
    assert finish(context, reads) == recount(context)
    assert sorted(reads.parts_read) == sorted(set(parts_of(context.out)) - known)


class Sulking(ReadsNoted):
    """Refuses the first summary; says when one is there."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings)
        self.refused = 0
        self.there = threading.Event()

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        if not self.refused:
            self.refused += 1
            raise StorageError("not now")
        created = super().put_if_absent(uri, data)
        self.there.set()
        return created


def test_summaries_are_written_while_the_run_goes_on_and_again_if_the_store_refused(context: WorkerContext):
    """A driver that is killed has no last moment in which to write."""
    chunks, reports, store = list(context.plan.chunks()), list[ChunkReport](), Sulking(StoreSettings())
    with kept(
        reports, partial(summary_of, plan=context.plan), context.plan, out=context.out, store=store, every_s=0.01
    ):
        for chunk in chunks[:2]:
            reports.append(process_chunk(Attempt(chunk), context))
        assert store.there.wait(20)
        assert {summary.part.name for summary in summaries_of(context)} <= set(parts_of(context.out))
        assert summaries_of(context) != []
    assert store.refused == 1
    assert sorted(summary.part.name for summary in summaries_of(context)) == sorted(parts_of(context.out))


def test_parts_stand_in_plan_order(context: WorkerContext):
    """Whatever the order in which they were done or read."""
    reports = work(context)[::-1]
    names = [part.name for part in finish(context, context.store, reports[1:3]).parts]
    assert names == [f"{chunk.chunk_id}.parquet" for chunk in context.plan.chunks()]


def test_failed_rows_are_looked_for_among_the_parts_that_are_there(context: WorkerContext, reads: ReadsNoted):
    """A run that is not finished may have lost parts of which summaries are left: nobody reads those, or says so."""
    reports = work(context)
    write_down(context, reports[:4])
    path_of(context, reports[0]).unlink()
    notes = Notes()
    committed = {report.chunk_id for report in reports[1:]}
    assert chunks_with_failures(context.plan, committed, None, out=context.out, store=reads, progress=notes) == set()
    assert reads.parts_read == [path_of(context, reports[4]).name]
    assert notes.finishes == [(3, 4), (4, 4)]
    assert notes.sentences == []
