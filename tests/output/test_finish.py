"""The finish: what it believes of its own workers without reading, what it reads, and what it says of either."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageError
from pipeline.output.finish import chunks_with_failures
from pipeline.output.manifest import manifest_to_json
from pipeline.settings import Format, StoreSettings
from pipeline.signals import StopFlag
from pipeline.storage.parts import read_part, write_part
from pipeline.work.chunk import WorkerContext
from tests.fakes_run import Notes, ReadsNoted
from tests.output.finishing import finish, path_of, recount, summaries_of, write_down
from tests.small_runs import context_of, parts_of, small_run, work


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
    assert "1 part not as left by the writer" in said
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


def test_without_an_etag_a_report_is_not_believed(context: WorkerContext, reads: ReadsNoted):
    """A size alone says little of a part: all of a store without etags are read, as ever."""
    reports = [replace(report, etag="") for report in work(context)]
    assert finish(context, reads, reports) == recount(context)
    assert len(reads.parts_read) == 5


STUCK_S = 60


class Stuck(ReadsNoted):
    """Answers two reads and no other: the third one interrupts after `two_counted`, and none ends before `never`."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings)
        self.two_counted, self.never = threading.Event(), threading.Event()
        self.was_waited_for = False
        self._numbers = itertools.count(1)

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        number = next(self._numbers) if "/data/" in uri else 0
        if number > 2:
            self.two_counted.wait(20)
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            self.was_waited_for |= not self.never.wait(STUCK_S)
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
        assert not store.was_waited_for
    finally:
        store.never.set()
    known = {summary.part.name for summary in summaries_of(context)}
    assert len(known) == 2
    assert finish(context, reads) == recount(context)
    assert sorted(reads.parts_read) == sorted(set(parts_of(context.out)) - known)


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
