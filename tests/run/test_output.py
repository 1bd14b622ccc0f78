"""What a run leaves: the same for any number of workers, whole, and done again only where something is missing."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.generate import generate
from pipeline.errors import StorageError
from pipeline.output.finish import count_parts
from pipeline.records import Stage
from pipeline.run.outcome import Outcome
from pipeline.run.report import load_snippet, summary
from pipeline.settings import Format, Log, Recipe, Settings, StoreSettings
from pipeline.storage.parts import read_part
from pipeline.storage.store import Store
from pipeline.work.chunk import GenerateMasks
from pipeline.work.loading import Weights
from tests.fakes_run import (
    FakeGenerator,
    Notes,
    ReadsNoted,
    broken_weights,
    drawn_image,
    fake_weights,
    write_folder,
)
from tests.small_runs import parts_of, run, with_run


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
    busy = sum(report.seconds[Stage.COMPUTE] for report in outcome.reports) / outcome.worked_s
    assert 0 < busy < 1
    assert f"overlapping; the device was busy for {busy:.0%} of the workers' time" in text
    assert f"{13 * 16} candidates: " in text
    assert f"{document['masks']} kept" in text


def test_a_finished_run_is_known_without_reading_a_part(finished: tuple[Settings, Outcome], store: Store):
    """The driver wrote down what its workers reported; at SA-1B's size the parts are 240 GB."""
    settings, outcome = finished
    counts = ReadsNoted(StoreSettings())
    assert count_parts(outcome.plan, out=settings.out, store=counts, progress=Notes()) == outcome.manifest
    assert counts.parts_read == []


def test_load_snippet_loads_the_dataset(finished: tuple[Settings, Outcome]):
    """What the summary tells a person to type must work as it stands."""
    names: dict[str, Any] = {}
    exec(load_snippet(Format.PARQUET, finished[1].out), names)
    assert names["table"].num_rows == 13


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


def test_repeated_run_does_nothing_and_says_so(finished: tuple[Settings, Outcome]):
    """A retrying scheduler repeats commands; that must be free and harmless. Somebody who has added images and repeats
    the command must learn that they are in no plan."""
    settings, first = finished
    before = {path: path.stat().st_mtime_ns for path in Path(settings.out).rglob("*")}
    again = run(settings, find_weights=broken_loader)
    assert again.exit_code == 0
    headline, plan, *_ = summary(again).splitlines()
    assert "nothing to do: all 5 chunks were already committed" in headline
    assert re.fullmatch(r"  plan     frozen since [-0-9]{10} [:0-9]{8} UTC; images that came .* another out=", plan)
    assert "frozen" not in summary(first)
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
    assert "  plan     frozen since " in summary(outcome)
    assert parts_of(settings.out) == parts_of(finished[0].out)


def test_a_part_made_again_that_differs_from_the_manifest_is_an_error(
    finished: tuple[Settings, Outcome], tmp_path: Path
):
    """Readers hold the manifest's hashes; a quiet change of a finished dataset would break them."""
    settings = replace(finished[0], out=str(tmp_path / "copy"))
    shutil.copytree(finished[0].out, settings.out)
    (Path(settings.out) / "data" / "more-00001.parquet").unlink()
    with pytest.raises(StorageError, match=r"says other things of 1 part .*more-00001\.parquet.* made again"):
        run(settings, find_weights=other_device)
    for name in ("_SUCCESS", "_job/manifest.json"):
        (Path(settings.out) / name).unlink()
    assert run(settings).exit_code == 0


def other_device(settings: Settings, store: Store) -> Weights:
    """The same weights; the device rounds otherwise."""
    return replace(fake_weights(settings, store), load=load_coarse)


def load_coarse(_store: Store, recipe: Recipe, *, threads: int, shared: Path | None = None) -> GenerateMasks:
    return FakeGenerator(recipe, radius=4)


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
def test_too_many_failed_images_exit_with_3_after_committing_all(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The dataset is whole; the caller's script still notices, and finds the same in the log and in the report."""
    images = {f"im{number}.png": drawn_image(number) for number in range(4)} | {"bad.png": b"bad"}
    settings = replace(settings, source=str(write_folder(tmp_path / "images", images)))
    assert generate(with_run(settings, log=Log.JSON), find_weights=fake_weights) == 3
    said = capsys.readouterr()
    assert (Path(settings.out) / "_SUCCESS").exists()
    assert "20.0% of the images" in said.out
    assert "1 unreadable" in said.out
    lines = [json.loads(line) for line in said.err.splitlines()]
    assert (lines[-1]["event"], lines[-1]["message"]) == ("ended", "exit code 3")
    [report] = [json.loads(path.read_text()) for path in Path(settings.out).glob("_job/reports/*.json")]
    assert {line["run"] for line in lines} == {report["run"]}
    assert (report["exit_code"], report["ending"], report["error"]) == (3, "done", None)
    assert report["images"] == {"ok": 4, "unreadable": 1}
    assert report["settings"]["recipe"]["points_per_side"] == settings.recipe.points_per_side
    assert run(with_run(settings, max_failed_fraction=0.2)).exit_code == 0
