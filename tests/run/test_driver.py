"""The driver on a real Ray session: any number of workers, deaths, retries, signals it was not asked for."""

from __future__ import annotations

import json
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from pipeline.errors import ConfigError, RunError, StorageError
from pipeline.records import ImageRow
from pipeline.run.journal import JournalKeeper
from pipeline.run.plan import Shape, members_uri
from pipeline.run.planning import create_or_load_plan
from pipeline.run.progress import Standing
from pipeline.run.report import load_snippet, summary
from pipeline.run.room import Room
from pipeline.run.session import FindWeights, Outcome, Weights, run_settings
from pipeline.run.signals import StopFlag
from pipeline.settings import Format, ModelSettings, RunSettings, Settings
from pipeline.storage.parts import read_part
from pipeline.storage.store import Store
from tests.fakes_run import (
    POISON_RGB,
    TAR_PIT_RGB,
    FakeSegmenter,
    broken_weights,
    drawn_image,
    fake_weights,
    write_folder,
)
from tests.run.conftest import parts_of, small_run, with_run


class Notes:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.standings: list[Standing] = []

    def show(self, standing: Standing) -> None:
        self.standings.append(standing)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def close(self) -> None:
        return


def run(settings: Settings, *, find_weights: FindWeights = fake_weights, notes: Notes | None = None) -> Outcome:
    return run_settings(settings, progress=notes or Notes(), find_weights=find_weights, stop=StopFlag())


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


def load_refused(_store: Store) -> Any:
    raise ConfigError("the checkpoint is not a vit_b: 3 keys differ")


@pytest.fixture(scope="module")
def finished(cluster: str, source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Outcome]:
    """A run that one worker has finished; read only."""
    settings = small_run(source, tmp_path_factory.mktemp("finished") / "out")
    return settings, run(with_run(settings, max_workers=1))


def test_one_and_three_workers_write_the_same_bytes(finished: tuple[Settings, Outcome], tmp_path: Path):
    """Nothing in a part may depend on who else was working, or on where OUT is."""
    settings, one = finished
    notes = Notes()
    three = run(with_run(replace(settings, out=str(tmp_path / "three")), max_workers=3), notes=notes)
    assert one.exit_code == three.exit_code == 0
    assert parts_of(one.out) == parts_of(three.out)
    assert len(parts_of(one.out)) == 5
    manifests = [(Path(out) / "_job" / "manifest.json").read_bytes() for out in (one.out, three.out)]
    assert manifests[0] == manifests[1]
    assert max(standing.workers_wanted for standing in notes.standings) == 3


def test_finished_run_has_a_manifest_that_recounts_its_parts(finished: tuple[Settings, Outcome]):
    """The last objects are written from what lies in the store."""
    settings, outcome = finished
    document = json.loads((Path(settings.out) / "_job" / "manifest.json").read_text())
    assert (Path(settings.out) / "_SUCCESS").exists()
    parts = parts_of(settings.out)
    assert sorted(part["name"] for part in document["parts"]) == sorted(parts)
    assert {part["name"]: part["size"] for part in document["parts"]} == {n: len(data) for n, data in parts.items()}
    rows = pq.read_table(Path(settings.out) / "data")
    assert document["images"] == rows.num_rows == 13
    assert document["masks"] == sum(len(masks) for masks in rows["annotations"].to_pylist())
    text = summary(outcome)
    assert "13 ok, 0 failed" in text
    assert "images/s" in text
    assert f"{13 * 48} candidates: " in text
    assert f"{document['masks']} kept" in text


def test_load_snippet_loads_the_dataset(finished: tuple[Settings, Outcome]):
    """What the summary tells a person to type must work as it stands."""
    names: dict[str, Any] = {}
    exec(load_snippet(Format.PARQUET, finished[1].out), names)
    assert names["table"].num_rows == 13


def test_repeated_run_does_nothing_and_says_so(finished: tuple[Settings, Outcome]):
    """A retrying scheduler repeats commands; that must be free and harmless."""
    settings, _ = finished
    before = {path: path.stat().st_mtime_ns for path in Path(settings.out).rglob("*")}
    again = run(settings, find_weights=broken_loader)
    assert again.exit_code == 0
    assert "nothing to do: all 5 chunks were already committed" in summary(again)
    assert {path: path.stat().st_mtime_ns for path in Path(settings.out).rglob("*")} == before


def broken_loader(settings: Settings, store: Store) -> Weights:
    """The same weights; a worker that loads them would fail, so none may be started."""
    return replace(fake_weights(settings, store), load=broken_weights(settings, store).load)


@pytest.mark.parametrize("gone", [("data/more-00001.parquet",), ("data/more-00001.parquet", "_SUCCESS")])
def test_deleted_part_is_made_again_with_the_same_bytes(
    finished: tuple[Settings, Outcome], tmp_path: Path, gone: tuple[str, ...]
):
    """Resume is the plan minus the listing, with or without _SUCCESS; the manifest of the finished run still fits."""
    settings = replace(finished[0], out=str(tmp_path / "copy"))
    shutil.copytree(finished[0].out, settings.out)
    for name in gone:
        (Path(settings.out) / name).unlink()
    outcome = run(settings)
    assert outcome.exit_code == 0
    assert (Path(settings.out) / "_SUCCESS").exists()
    assert outcome.found_chunks == 4
    assert "4 were already committed" in summary(outcome)
    assert parts_of(settings.out) == parts_of(finished[0].out)


def test_a_part_made_again_that_differs_from_the_manifest_is_an_error(
    finished: tuple[Settings, Outcome], tmp_path: Path
):
    """Readers hold the manifest's hashes; a quiet change of a finished dataset would break them."""
    settings = replace(finished[0], out=str(tmp_path / "copy"))
    shutil.copytree(finished[0].out, settings.out)
    (Path(settings.out) / "data" / "more-00001.parquet").unlink()
    with pytest.raises(StorageError, match=r"says other things of 1 parts .*more-00001\.parquet.* made again"):
        run(settings, find_weights=other_device)
    for name in ("_SUCCESS", "_job/manifest.json"):
        (Path(settings.out) / name).unlink()
    assert run(settings).exit_code == 0


def other_device(settings: Settings, store: Store) -> Weights:
    """The same weights; the segmenter rounds otherwise."""
    return replace(fake_weights(settings, store), load=load_coarse)


def load_coarse(_store: Store) -> Any:
    return CoarseSegmenter()


class CoarseSegmenter(FakeSegmenter):
    side = 8


def test_a_damaged_part_is_named(finished: tuple[Settings, Outcome], tmp_path: Path):
    """Which of a hundred thousand files to delete must be in the sentence."""
    settings = replace(finished[0], out=str(tmp_path / "copy"))
    shutil.copytree(finished[0].out, settings.out)
    part = Path(settings.out) / "data" / "more-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    (Path(settings.out) / "_SUCCESS").unlink()
    with pytest.raises(StorageError, match=r"data/more-00001\.parquet is damaged"):
        run(settings)


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
    undisturbed = {row.file_name: row for row in rows_of(finished[0])}
    for name in images.keys() - {"im2.png", "im6.png"}:
        assert [mask.counts for mask in rows[name].masks] == [mask.counts for mask in undisturbed[name].masks]
    assert outcome.exit_code == 3, "a quarter of the images failed"
    assert "6 ok, 2 failed (2 crashed)" in summary(outcome)
    assert sum("goes on without one image" in sentence for sentence in notes.sentences) == 2


def rows_of(settings: Settings) -> list[ImageRow]:
    return [row for part in parts_of(settings.out).values() for row in read_part(part, format=Format.PARQUET).rows]


@pytest.mark.usefixtures("cluster")
def test_a_chunk_whose_reading_always_fails_is_given_up_and_named(settings: Settings, store: Store, tmp_path: Path):
    """No image is to blame for a damaged index; the other shard is committed, and the run exits with 3."""
    shape = Shape.of(settings, weights_sha256="f" * 64)
    plan = create_or_load_plan(shape, out=settings.out, store=store).plan
    Path(members_uri(settings.out, "more", *plan.planned("more").members_sha256)).write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"the store does not answer: .*is not the member index that was planned"):
        run(with_run(settings, chunk_attempts=2))


@pytest.mark.usefixtures("cluster")
def test_workers_that_cannot_start_stop_the_run_with_their_own_error(settings: Settings):
    """Waiting for ever for workers that cannot be would be a silent hang."""
    with pytest.raises(RunError, match="the accelerator is on fire"):
        run(settings, find_weights=broken_weights)


@pytest.mark.usefixtures("cluster")
def test_checkpoint_that_a_worker_refuses_is_a_configuration_error(settings: Settings):
    """The sentence of the loader reaches the user unwrapped, at the first worker."""

    def refused(settings: Settings, store: Store) -> Weights:
        return replace(fake_weights(settings, store), load=load_refused)

    with pytest.raises(ConfigError, match=r"^the checkpoint is not a vit_b: 3 keys differ$"):
        run(settings, find_weights=refused)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("address", "max_workers"), [("local", None), ("local", 2), ("auto", None)], ids=["local", "local, two", "cluster"]
)
def test_a_gpu_that_cannot_come_is_refused(settings: Settings, address: str, max_workers: int | None):
    """An actor that asks for a GPU where there is none waits for ever, without a word."""
    settings = replace(with_run(settings, address=address, max_workers=max_workers), model=ModelSettings(device="cuda"))
    with pytest.raises(ConfigError, match=r"model\.device=cuda, but Ray sees no GPU"):
        run(settings)


@pytest.mark.usefixtures("cluster")
def test_a_gpu_that_an_autoscaler_may_bring_is_waited_for(settings: Settings):
    """On a cluster that starts empty, pending workers are what makes it grow."""
    settings = replace(with_run(settings, address="auto", max_workers=2), model=ModelSettings(device="cuda"))
    assert stopped_while_it_shows(settings).stopped


def stopped_while_it_shows(settings: Settings) -> Outcome:
    """A run that is told to stop when it first shows how far it is."""
    stop = StopFlag()

    class Stopping(Notes):
        def show(self, standing: Standing) -> None:
            stop(signal.SIGTERM, None)

    return run_settings(settings, progress=Stopping(), find_weights=fake_weights, stop=stop)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_is_asked_for_more_than_it_has_and_a_single_machine_is_not():
    """Where nodes may come on demand, workers without room are that demand, though no number of them is set."""
    assert Room(RunSettings(address="local"), device="cpu").worth_asking_for(()) == 4
    assert Room(RunSettings(address="auto"), device="cpu").worth_asking_for(()) == 8


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
def test_more_threads_than_any_node_has_are_refused(settings: Settings):
    """The same silent wait, for CPUs."""
    with pytest.raises(ConfigError, match=r"run\.threads_per_worker=64, but no node has that many CPUs"):
        run(with_run(settings, threads_per_worker=64))


@pytest.mark.usefixtures("cluster")
def test_source_that_vanishes_stops_the_run_and_says_where(settings: Settings, store: Store, tmp_path: Path):
    """Not one `missing` row is committed for it."""
    folder = write_folder(tmp_path / "mount", {f"{name}.png": drawn_image(ord(name)) for name in "abcd"})
    settings = with_run(replace(settings, source=str(folder)), chunk_attempts=1)
    create_or_load_plan(Shape.of(settings, weights_sha256="f" * 64), out=settings.out, store=store)
    for image in folder.iterdir():
        image.unlink()
    with pytest.raises(RunError, match="mount shows nothing any more"):
        run(settings)
    assert not (Path(settings.out) / "data").exists()


@pytest.mark.usefixtures("cluster")
def test_too_many_failed_images_exit_with_3_after_committing_all(settings: Settings, tmp_path: Path):
    """The dataset is whole; the caller's script still notices."""
    images = {f"im{number}.png": drawn_image(number) for number in range(4)} | {"bad.png": b"bad"}
    settings = replace(settings, source=str(write_folder(tmp_path / "images", images)))
    strict = run(settings)
    assert strict.exit_code == 3
    assert (Path(settings.out) / "_SUCCESS").exists()
    assert "20.0% of the images" in summary(strict)
    assert "1 unreadable" in summary(strict)
    assert run(with_run(settings, max_failed_fraction=0.2)).exit_code == 0


def test_coco_rle_run_holds_the_same_masks_as_parquet(finished: tuple[Settings, Outcome], tmp_path: Path):
    """The format is a choice of container, not of content."""
    settings, _ = finished
    coco = replace(settings, out=str(tmp_path / "coco"), format=Format.COCO_RLE)
    outcome = run(coco)
    assert outcome.exit_code == 0
    assert "one for each image that has masks" in summary(outcome)
    for (_, one), (name, other) in zip(parts_of(settings.out).items(), parts_of(coco.out).items(), strict=True):
        assert name.endswith(".tar")
        rows = read_part(one, format=Format.PARQUET).rows
        others = read_part(other, format=Format.COCO_RLE).rows
        assert [row.image_id for row in rows] == [row.image_id for row in others]
        assert [[mask.counts for mask in row.masks] for row in rows] == [
            [mask.counts for mask in row.masks] for row in others
        ]
