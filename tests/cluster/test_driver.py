"""The driver on a real Ray session: deaths, hangs, exceptions and sources that go."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.cluster.journal import JournalKeeper
from pipeline.errors import RunError
from pipeline.plan.layout import members_uri
from pipeline.plan.plan import OutputSettings
from pipeline.plan.planning import create_or_load_plan
from pipeline.run.outcome import Outcome
from pipeline.run.report import summary
from pipeline.settings import Format, Settings
from pipeline.storage.parts import read_part
from pipeline.storage.store import Store
from pipeline.work.weights import Weights
from tests.fakes_run import (
    POISON_RGB,
    TAR_PIT_RGB,
    FakeSegmenter,
    Notes,
    drawn_image,
    fake_weights,
    write_folder,
    write_tar,
)
from tests.small_runs import parts_of, rows_at, run, with_run


def load_stumbling(store: Store, *, marks: str) -> Any:
    return StumblingSegmenter(Path(marks))


class StumblingSegmenter(FakeSegmenter):
    """The first image over all processes fails with an exception, and the first after five good ones of a process with
    what a broken context says; a process that has said the latter fails for ever."""

    poisoned = False

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self._marks = marks
        self._good = 0

    def encode(self, crops_HW3: Any) -> Any:
        for number, error in enumerate((RuntimeError("stumbled"), torch.AcceleratorError(f"CUDA error: {ILLEGAL}"))):
            if number == 1 and self._good < 5:
                continue  # the worker's other chunk has said what the exception was by then
            with suppress(FileExistsError):
                (self._marks / str(number)).touch(exist_ok=False)
                self.poisoned = number == 1
                raise error
        if self.poisoned:
            raise torch.AcceleratorError("CUDA error: the context is gone")
        self._good += 1
        return super().encode(crops_HW3)


ILLEGAL = "an illegal memory access was encountered"


@pytest.mark.usefixtures("cluster")
def test_an_exception_costs_an_attempt_and_a_poisoned_device_its_process(settings: Settings, tmp_path: Path):
    """Neither costs the run, nor the image that met it; after an illegal access nothing works in that process."""
    (tmp_path / "marks").mkdir()
    notes = Notes()

    def stumbling(settings: Settings, store: Store) -> Weights:
        return replace(fake_weights(settings, store), load=partial(load_stumbling, marks=str(tmp_path / "marks")))

    outcome = run(with_run(settings, max_workers=1), find_weights=stumbling, notes=notes)
    assert outcome.exit_code == 0
    assert "13 ok, 0 failed" in summary(outcome)
    assert sum("RuntimeError: stumbled" in sentence for sentence in notes.sentences) == 1
    assert any(f"its device failed: AcceleratorError: CUDA error: {ILLEGAL}" in said for said in notes.sentences)
    assert not any("the context is gone" in sentence for sentence in notes.sentences)


@pytest.mark.usefixtures("cluster")
def test_images_that_kill_or_hang_their_process_are_rows_and_cost_nobody_else_anything(
    finished: tuple[Settings, Outcome], settings: Settings, tmp_path: Path
):
    """In one chunk with innocent ones, which get the masks that they get without such neighbours."""
    images = {f"im{number}.png": drawn_image(number) for number in range(8)}
    images |= {"im2.png": drawn_image(2, first_rgb=POISON_RGB), "im6.png": drawn_image(6, first_rgb=TAR_PIT_RGB)}
    folder = write_folder(tmp_path / "poisoned", images)
    notes = Notes()
    settings = with_run(replace(settings, source=str(folder)), images_per_chunk=8, max_workers=1, image_timeout_s=6.0)
    outcome = run(settings, notes=notes)
    assert outcome.given_up == ()
    assert (Path(settings.out) / "_SUCCESS").exists()
    [part] = parts_of(settings.out).values()
    rows = {row.file_name: row for row in read_part(part, format=Format.PARQUET).rows}
    assert rows["im2.png"].status == rows["im6.png"].status == "crashed"
    assert rows["im2.png"].error == "3 attempts at this image failed: its worker died"
    assert rows["im6.png"].error == "3 attempts at this image failed: it hung for run.image_timeout_s=6"
    undisturbed = {row.file_name: row for row in rows_at(finished[0].out)}
    for name in images.keys() - {"im2.png", "im6.png"}:
        assert [mask.counts for mask in rows[name].masks] == [mask.counts for mask in undisturbed[name].masks]
    assert outcome.exit_code == 3, "a quarter of the images failed"
    assert "6 ok, 2 failed (2 crashed)" in summary(outcome)
    assert sum("goes on without one image" in sentence for sentence in notes.sentences) == 2


@pytest.mark.usefixtures("cluster")
def test_a_chunk_whose_reading_always_fails_is_given_up_and_named(settings: Settings, store: Store, tmp_path: Path):
    """No image is to blame for a damaged index; the other shard is committed, and the run exits with 3."""
    output_settings = OutputSettings.of(settings, weights_sha256="f" * 64)
    plan = create_or_load_plan(output_settings, out=settings.out, store=store).plan
    Path(members_uri(settings.out, "more", *plan.planned("more").members_sha256)).write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"the store does not answer: .*is not the member index that was planned"):
        run(with_run(settings, chunk_attempts=2))


@pytest.mark.usefixtures("cluster")
def test_a_lost_journal_is_replaced_once_however_many_found_it_lost():
    """Every worker finds it; a second replacement would take the marks of those that use the first."""
    keeper = JournalKeeper()
    lost = keeper.actor
    keeper.replace(lost)
    fresh = keeper.actor
    keeper.replace(lost)
    assert keeper.actor is fresh
    assert keeper.read(["nobody's"]) == {}
    keeper.close()


@pytest.mark.usefixtures("cluster")
def test_a_shard_that_vanishes_is_left_for_the_next_command_which_does_it(
    settings: Settings, store: Store, tmp_path: Path
):
    """Not one `missing` row is committed for it, and the other shards are done."""
    folder = write_folder(tmp_path / "mount", {f"{name}.png": drawn_image(ord(name)) for name in "abcd"})
    tar = write_tar(tmp_path / "other.tar", {"e.png": drawn_image(1)})
    settings = replace(settings, source=f"{folder},{tar}")
    create_or_load_plan(OutputSettings.of(settings, weights_sha256="f" * 64), out=settings.out, store=store)
    away = folder.rename(tmp_path / "away")
    outcome = run(settings)
    assert (outcome.exit_code, outcome.committed_chunks, len(outcome.given_up)) == (3, 1, 2)
    assert "mount shows nothing any more" in summary(outcome)
    assert [row.status for row in rows_at(settings.out)] == ["ok"]
    away.rename(folder)
    assert run(settings).exit_code == 0
    assert [row.status for row in rows_at(settings.out)] == ["ok"] * 5
