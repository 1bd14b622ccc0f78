"""The driver on a real Ray session: deaths, hangs, exceptions, signals and sources that go.

Most with workers that start in a second (light.py); what a command makes of it is asked of the command, which then
finds all chunks committed.
"""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from pipeline.cluster.crew import CHUNKS_IN_FLIGHT
from pipeline.cluster.journal import JournalKeeper
from pipeline.cluster.ledger import JUDGED_FROM
from pipeline.cluster.metrics import FAILURES
from pipeline.errors import ConfigError, RunError
from pipeline.plan.layout import members_uri
from pipeline.progress import Standing
from pipeline.records import Ending
from pipeline.run.report import summary
from pipeline.settings import Format, Settings
from pipeline.signals import StopFlag
from pipeline.storage.parts import read_part
from pipeline.storage.store import Store
from tests.cluster.driving import Drive, drive, planned
from tests.cluster.light import Deadly, Held, Shy, Slow, Stumbling, one_at_a_time
from tests.fakes_run import POISON_RGB, TAR_PIT_RGB, Notes, drawn_image, write_folder, write_tar
from tests.small_runs import parts_of, rows_at, run, with_run

ILLEGAL = "AcceleratorError: CUDA error: an illegal memory access was encountered"

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver looks where its workers are ten times as often as in a run: it sees the same, and sooner."""
    monkeypatch.setattr("pipeline.cluster.driver.WATCH_S", 0.2)


def test_an_exception_costs_an_attempt_and_a_poisoned_device_its_process(
    settings: Settings, store: Store, tmp_path: Path
):
    """Neither costs the run, nor the image that met it; after an illegal access nothing works in that process."""
    (tmp_path / "marks").mkdir()
    settings = with_run(settings, max_workers=1)
    made = drive(settings, store, Stumbling(tmp_path / "marks", ILLEGAL))
    assert made.ending is Ending.DONE
    assert sum("RuntimeError: stumbled" in sentence for sentence in made.notes.sentences) == 1
    assert any(f"its device failed: {ILLEGAL}" in sentence for sentence in made.notes.sentences)
    assert not any("the context is gone" in sentence for sentence in made.notes.sentences)
    assert made.series.values[FAILURES.name].keys() == {("error",), ("device",)}
    outcome = run(settings)
    assert outcome.exit_code == 0
    assert "13 ok, 0 failed" in summary(outcome)


def test_images_that_kill_or_hang_their_process_are_rows_and_cost_nobody_else_anything(
    settings: Settings, store: Store, tmp_path: Path
):
    """In one chunk with innocent ones, which get the masks that they get without such neighbours."""
    images = {f"im{number}.png": drawn_image(number) for number in range(8)}
    innocent = write_folder(tmp_path / "innocent", {name: images[name] for name in images.keys() - set(DEADLY)})
    undisturbed = with_run(replace(settings, source=str(innocent), out=str(tmp_path / "undisturbed")), max_workers=1)
    drive(undisturbed, store)
    images |= {name: drawn_image(number, first_rgb=rgb) for number, (name, rgb) in enumerate(DEADLY.items())}
    folder = write_folder(tmp_path / "poisoned", images)
    settings = with_run(replace(settings, source=str(folder)), images_per_chunk=8, max_workers=1, image_timeout_s=1.0)
    made = drive(settings, store, Deadly(kills=POISON_RGB, hangs=TAR_PIT_RGB))
    assert made.ledger.given_up == {}
    [part] = parts_of(settings.out).values()
    rows = {row.file_name: row for row in read_part(part, format=Format.PARQUET).rows}
    assert rows["im2.png"].status == rows["im6.png"].status == "crashed"
    assert rows["im2.png"].error == "3 attempts at this image failed: its worker died"
    assert rows["im6.png"].error == "3 attempts at this image failed: it hung for run.image_timeout_s=1"
    masks = {row.file_name: row.masks for row in rows_at(undisturbed.out)}
    assert {name: rows[name].masks for name in masks} == masks
    assert len(masks) == 6
    assert made.series.values[FAILURES.name].keys() == {("worker_died",), ("hung",)}
    assert sum("goes on without one image" in sentence for sentence in made.notes.sentences) == 2
    outcome = run(settings)
    assert outcome.exit_code == 3, "a quarter of the images failed"
    assert (Path(settings.out) / "_SUCCESS").exists()
    assert "6 ok, 2 failed (2 crashed)" in summary(outcome)


DEADLY = {"im2.png": POISON_RGB, "im6.png": TAR_PIT_RGB}


def test_deaths_between_finished_chunks_are_those_of_their_images_and_of_no_neighbour(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A long run survives more bad images than deaths in a row would end it; a chunk that waited behind one is not
    blamed for what it never began."""
    monkeypatch.setattr("pipeline.cluster.driver.DEATHS_IN_A_ROW", 2)
    images = {f"{number}.png": drawn_image(number) for number in range(4)}
    images |= {f"{number}.png": drawn_image(number, first_rgb=POISON_RGB) for number in (0, 2)}
    folder = write_folder(tmp_path / "chunks", images)
    settings = with_run(replace(settings, source=str(folder)), images_per_chunk=1, max_workers=1, chunk_attempts=1)
    made = drive(settings, store, Deadly(kills=POISON_RGB, hangs=TAR_PIT_RGB), actor_class=one_at_a_time)
    assert made.ending is Ending.DONE
    assert made.ledger.given_up.keys() == made.ledger.suspects == {"chunks-00000", "chunks-00002"}
    assert made.ledger.committed == {"chunks-00001", "chunks-00003"}
    assert made.series.values[FAILURES.name] == {("worker_died",): 2}


def test_a_chunk_that_failed_has_its_worker_to_itself(settings: Settings, store: Store, tmp_path: Path):
    """If it kills the worker next time, nobody else's work is lost with it; two such chunks are no company either."""
    images = {f"{number}.png": drawn_image(number) for number in range(6)}
    images |= {f"{number}.png": drawn_image(number, first_rgb=POISON_RGB) for number in (0, 1)}
    (tmp_path / "seen").mkdir()
    settings = replace(settings, source=str(write_folder(tmp_path / "chunks", images)))
    made = drive(with_run(settings, images_per_chunk=1, max_workers=1), store, Shy(POISON_RGB, tmp_path / "seen"))
    assert made.ending is Ending.DONE
    assert made.ledger.suspects == {"chunks-00000", "chunks-00001"}
    assert (tmp_path / "seen" / "watched").exists()
    assert not (tmp_path / "seen" / "company").exists()


def test_behind_a_suspect_chunk_nothing_waits_in_its_worker(settings: Settings, store: Store, tmp_path: Path):
    """One whose machine had no memory left is tried again at once, before all others: alone it takes the least."""
    images = {f"{number}.png": drawn_image(number) for number in range(5)} | {
        "0.png": drawn_image(0, first_rgb=POISON_RGB)
    }
    (tmp_path / "seen").mkdir()
    settings = replace(settings, source=str(write_folder(tmp_path / "chunks", images)))
    shy = Shy(POISON_RGB, tmp_path / "seen", fail_first=False)
    made = drive(with_run(settings, images_per_chunk=1, max_workers=1), store, shy, suspects=["chunks-00000"])
    assert made.ending is Ending.DONE
    assert (tmp_path / "seen" / "watched").exists()
    assert not (tmp_path / "seen" / "company").exists()


def test_a_chunk_whose_reading_always_fails_is_given_up_and_named(settings: Settings, store: Store):
    """No image is to blame for an index that is gone; the store is, and the run stops with what it said."""
    plan = planned(settings, store)
    Path(members_uri(settings.out, "more", *plan.planned("more").members_sha256)).unlink()
    notes = Notes()
    with pytest.raises(RunError, match=r"the store does not answer: .*/more-.* does not exist"):
        drive(with_run(settings, chunk_attempts=2), store, notes=notes)
    said = [sentence for sentence in notes.sentences if sentence.startswith("chunk more-0000")]
    assert "is tried again: NotFoundError" in said[0]
    assert "is given up: NotFoundError" in said[-1]


def test_an_index_that_somebody_has_edited_ends_the_run_at_once(settings: Settings, store: Store):
    """As a wrong configuration, with exit code 2: no other attempt could help."""
    plan = planned(settings, store)
    Path(members_uri(settings.out, "more", *plan.planned("more").members_sha256)).write_bytes(b"edited")
    notes = Notes()
    with pytest.raises(ConfigError, match="is not the member index that was planned; restore it"):
        drive(settings, store, notes=notes)
    assert not any("tried again" in sentence for sentence in notes.sentences)


def test_a_shard_that_vanishes_is_left_for_the_next_command_which_does_it(
    settings: Settings, store: Store, tmp_path: Path
):
    """Not one `missing` row is committed for it, and the other shards are done."""
    folder = write_folder(tmp_path / "mount", {f"{name}.png": drawn_image(ord(name)) for name in "abcd"})
    tar = write_tar(tmp_path / "other.tar", {"e.png": drawn_image(1)})
    settings = replace(settings, source=f"{folder},{tar}")
    planned(settings, store)
    away = folder.rename(tmp_path / "away")
    made = drive(settings, store)
    assert made.ending is Ending.DONE
    assert made.ledger.committed == {"other-00000"}
    assert made.ledger.given_up.keys() == {"mount-00000", "mount-00001"}
    assert all("mount shows nothing any more" in given_up.why for given_up in made.ledger.given_up.values())
    assert [row.status for row in rows_at(settings.out)] == ["ok"]
    away.rename(folder)
    assert drive(settings, store).ledger.is_complete
    assert run(settings).exit_code == 0
    assert [row.status for row in rows_at(settings.out)] == ["ok"] * 5


def test_a_lost_journal_is_replaced_once_however_many_found_it_lost():
    """Every worker finds it; a second replacement would take the marks of those that use the first."""
    keeper, here = JournalKeeper(), ray.get_runtime_context().get_node_id()
    lost = keeper.on(here)
    keeper.replace(lost)
    fresh = keeper.on(here)
    keeper.replace(lost)
    assert keeper.on(here) is fresh
    assert keeper.read(here, ["nobody's"]) == {}
    keeper.close()


class Watching(Notes):
    """Tells a run to stop, by so many signals, when the first image has begun."""

    def __init__(self, slow: Slow, stop: StopFlag, signals: int) -> None:
        super().__init__()
        self._slow, self._stop, self._signals = slow, stop, signals
        self.stopped_at = 0.0

    def show(self, standing: Standing) -> None:
        super().show(standing)
        if self._slow.begun and not self._stop.signals:
            self.stopped_at = time.monotonic()
            for _ in range(self._signals):
                self._stop(signal.SIGTERM, None)


def stopped(
    settings: Settings, store: Store, tmp_path: Path, *, image_s: float, signals: int = 1
) -> tuple[Drive, float]:
    """A run that is stopped in its first chunks, and how many seconds the stop took."""
    (tmp_path / "begun").mkdir()
    slow, stop = Slow(image_s, tmp_path / "begun"), StopFlag()
    watching = Watching(slow, stop, signals)
    settings = with_run(settings, images_per_chunk=1, max_workers=1)
    made = drive(settings, store, slow, notes=watching, stop=stop)
    return made, time.monotonic() - watching.stopped_at


@pytest.mark.parametrize(("grace_s", "signals"), [(1.0, 1), (60.0, 2)], ids=["grace", "second signal"])
def test_a_stop_waits_for_no_image_longer_than_the_grace_time(
    settings: Settings, store: Store, tmp_path: Path, grace_s: float, signals: int
):
    """A preempted machine is switched off whether the image is done or not; a second signal says that nobody waits."""
    made, seconds = stopped(with_run(settings, grace_s=grace_s), store, tmp_path, image_s=20.0, signals=signals)
    assert made.ending is Ending.STOPPED
    assert seconds < 20.0, "the image was waited for"
    assert not made.ledger.committed
    assert f"stopping: up to {grace_s:.0f} s for {CHUNKS_IN_FLIGHT} chunks in flight" in made.notes.sentences


def test_a_stop_lets_what_is_in_flight_finish_and_begins_nothing_new(settings: Settings, store: Store, tmp_path: Path):
    """Work of minutes is worth the seconds; and the end of the last chunk is the end of the waiting."""
    made, seconds = stopped(with_run(settings, grace_s=60.0), store, tmp_path, image_s=1.0)
    assert made.ending is Ending.STOPPED
    assert seconds < 60.0, "the whole grace time was waited for"
    assert 1 <= len(made.ledger.committed) <= CHUNKS_IN_FLIGHT
    assert made.ledger.committed == {name.removesuffix(".parquet") for name in parts_of(settings.out)}


def test_at_the_deadline_a_run_stops_as_for_a_signal(settings: Settings, store: Store):
    """Before the scheduler ends it. What is in flight is waited for by the same code."""
    made = drive(settings, store, until=time.monotonic())
    assert made.ending is Ending.DEADLINE
    assert not made.ledger.committed
    assert any(sentence.startswith("stopping: up to 30 s") for sentence in made.notes.sentences)


def test_a_run_whose_images_fail_too_often_stops_early(settings: Settings, store: Store, tmp_path: Path):
    """A wrong source is found in the first minutes instead of after a week."""
    folder = write_folder(tmp_path / "bad", {f"{number}.png": b"no image" for number in range(400)})
    settings = with_run(replace(settings, source=str(folder)), images_per_chunk=20, max_workers=1)
    made = drive(with_run(settings, stop_after_failed_fraction=0.9), store)
    assert made.ending is Ending.FAILURES
    assert JUDGED_FROM <= made.ledger.images_committed < 400


class LettingGo(Notes):
    """Lets the image go that is held, once two others are shown as done."""

    def __init__(self, held: Held) -> None:
        super().__init__()
        self._held = held

    def show(self, standing: Standing) -> None:
        super().show(standing)
        if standing.images_done >= 2:
            self._held.let_go()


def test_an_image_at_work_is_not_shown_as_done(settings: Settings, store: Store, tmp_path: Path):
    """The third of a chunk: two are done, until the part is there."""
    folder = write_folder(tmp_path / "three", {f"{name}.png": drawn_image(ord(name)) for name in "abc"})
    (tmp_path / "go").mkdir()
    held = Held(3, tmp_path / "go")
    settings = with_run(replace(settings, source=str(folder)), max_workers=1)
    made = drive(settings, store, held, notes=LettingGo(held))
    assert made.ending is Ending.DONE
    assert 2 in {standing.images_done for standing in made.notes.standings}
    assert made.ledger.images_committed == 3
