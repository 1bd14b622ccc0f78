"""Summaries of parts: when drivers write them down, what other drivers believe of them, and what not."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.output.manifest import find_manifest, manifest_to_json, publish
from pipeline.output.summaries import Summary, kept, summary_of
from pipeline.plan.layout import manifest_uri
from pipeline.records import Attempt, ChunkReport
from pipeline.settings import StoreSettings
from pipeline.storage.store import ObjectInfo
from pipeline.work.chunk import WorkerContext, process_chunk
from tests.fakes_run import Notes, ReadsNoted
from tests.output.finishing import finish, path_of, recount, summaries_of, write_down
from tests.small_runs import parts_of, work


def write_down_summaries(context: WorkerContext, *summaries: Summary) -> None:
    with kept(summaries, lambda summary: summary, context.plan, out=context.out, store=context.store):
        pass


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
