"""OUT/_job/progress.json: what a program that looks now and then sees of a run."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.ledger import Ledger
from pipeline.errors import RunError, StorageError
from pipeline.plan.layout import progress_uri
from pipeline.progress import Standing
from pipeline.records import ChunkReport, Funnel
from pipeline.run.progress_file import progress_file
from pipeline.run.run_report import RunRecord
from pipeline.settings import StoreSettings
from pipeline.storage.connect import RoutedStore, connect
from pipeline.storage.store import ObjectInfo, Store
from tests.fakes_run import Notes, drawn_image, write_folder
from tests.small_runs import context_of, small_run

STANDING = Standing(images_done=6, images_total=7, counted=3, masks=21, failed=1, workers_ready=1, workers_wanted=2)


class Watched(RoutedStore):
    """Says when an object was written, and may refuse."""

    def __init__(self, *, refuses: bool = False) -> None:
        super().__init__(StoreSettings())
        self.written = threading.Event()
        self.refuses = refuses

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        return self._noted(super().put_if_absent(uri, data))

    def replace(self, uri: str, data: bytes, *, etag: str) -> ObjectInfo | None:
        return self._noted(super().replace(uri, data, etag=etag))

    def _noted(self, done: ObjectInfo | None) -> ObjectInfo | None:
        self.written.set()
        if self.refuses:
            raise StorageError("no")
        return done


@pytest.fixture
def record(tmp_path: Path, store: Store) -> RunRecord:
    """Of a run of seven images in three chunks, one of which is committed."""
    pictures = write_folder(tmp_path / "pictures", {f"{number}.png": drawn_image(number) for number in range(7)})
    settings = small_run(pictures, tmp_path / "out")
    plan = context_of(settings, store).plan
    ledger = Ledger.open(plan, committed=[], attempts_allowed=5, from_the_start=True)
    chunk = ledger.take().chunk
    ledger.finish(
        chunk, ChunkReport(chunk.chunk_id, won=True, images={"ok": 2, "missing": 1}, masks=21, funnel=Funnel())
    )
    return RunRecord("r1", settings, plan, ledger=ledger)


def read(out: str, store: Store) -> dict[str, Any]:
    return json.loads(store.read(progress_uri(out)))


def test_it_says_how_far_the_run_is_how_fast_and_what_failed(record: RunRecord):
    """While the work goes on; all of it reaches the screen as well."""
    watched, notes, out = Watched(), Notes(), record.settings.out
    with progress_file(notes, record, out=out, store=watched, every_s=0.01) as told:
        told.show(replace(STANDING, images_done=4))
        told.show(STANDING)
        watched.written.clear()
        assert watched.written.wait(10)
        watched.written.clear()
        assert watched.written.wait(10)
        seen = read(out, watched)
    assert seen["run"] == "r1"
    assert seen["exit_code"] is None
    assert seen["images"] == {"planned": 7, "done": 6}
    assert seen["chunks"] == {"planned": 3, "committed": 1, "given_up": 0}
    assert seen["workers"] == {"ready": 1, "wanted": 2}
    here = seen["this_command"]
    assert (here["images"], here["failed"], here["masks"], here["masks_per_image"]) == (3, 1, 21, 10.5)
    assert here["images_per_s"] > 0
    assert seen["seconds_left"] is not None
    assert notes.standings[-1] == STANDING


def test_at_the_end_it_has_the_exit_code_also_of_an_error(record: RunRecord, store: Store):
    """Whoever polls must see that nobody works any more."""

    def fails() -> None:
        with progress_file(Notes(), record, out=record.settings.out, store=store):
            raise RunError("the store is gone")

    with pytest.raises(RunError):
        fails()
    assert read(record.settings.out, store)["exit_code"] == 3


def test_a_run_that_takes_over_writes_over_the_file_of_the_one_before(record: RunRecord, store: Store):
    """Two drivers may even be at work at once; the file is the last one's."""
    for run_id in ("first", "second"):
        with progress_file(Notes(), replace(record, run_id=run_id), out=record.settings.out, store=store):
            pass
    assert read(record.settings.out, store)["run"] == "second"


def test_it_is_the_same_on_an_object_store(record: RunRecord, s3_endpoint: str, s3_bucket: str):
    """Every write replaces one object."""
    out, store = f"s3://{s3_bucket}/out", connect(StoreSettings(endpoint_url=s3_endpoint))
    with progress_file(Notes(), record, out=out, store=store, every_s=0.01) as told:
        told.show(STANDING)
    first = read(out, store)
    with progress_file(Notes(), replace(record, run_id="r2"), out=out, store=store):
        pass
    assert (first["run"], read(out, store)["run"]) == ("r1", "r2")


def test_a_store_that_refuses_it_costs_nobody_the_run(record: RunRecord):
    """It is for looking at."""
    watched = Watched(refuses=True)
    with progress_file(Notes(), record, out=record.settings.out, store=watched, every_s=0.01):
        assert watched.written.wait(10)
