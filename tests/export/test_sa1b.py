"""SA-1B's own layout: what our reader of labelled data, and SA-1B's strictest readers, find in the tars."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.export.records import Form
from pipeline.output.labelled import open_labelled
from pipeline.settings import Format, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.sa1b import mask_of
from pipeline.work.chunk import WorkerContext
from tests.export.making import exported, files_at, make_output, ok_rows, picture, write_source

STORE = connect(StoreSettings())


def members(to: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, data in files_at(to).items():
        if name.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                found |= {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("format", list(Format))
def test_the_tars_are_read_back_as_the_rows_they_were_made_of(tmp_path: Path, format: Format) -> None:
    """Every number of every mask, of parts in either format; our reader of SA-1B's shards sees the same masks."""
    context = make_output(write_source(tmp_path / "in.tar"), str(tmp_path / "out"), STORE, format=format)
    to = tmp_path / "to"
    found = exported(context, to, Form.SA1B)
    rows = [row for row in ok_rows(context) if row.masks]
    assert (found.total.images, found.total.empty, found.total.failed) == (11, 1, {"unreadable": 1})
    assert found.total.masks == sum(len(row.masks) for row in rows) > 100
    read = open_labelled(str(to), STORE)
    assert [entry.image_id for entry in read.entries] == [row.image_id for row in rows]
    annotated = members(to)
    for number, row in enumerate(rows):
        known = read.masks(number)
        assert known.hw == (row.height, row.width)
        assert known.counts == tuple(mask.counts for mask in row.masks)
        told = json.loads(annotated[f"sa_{row.image_id}.json"])
        first = told["annotations"][0]["id"]
        assert first == row.first_annotation_id
        layers = [(mask.crop_layer, mask.multimask_index) for mask in row.masks]
        assert row.masks == tuple(
            mask_of(each, crop_layer=layer, multimask_index=index)
            for each, (layer, index) in zip(told["annotations"], layers, strict=True)
        )
        assert told["image"] == {
            "image_id": row.image_id,
            "width": row.width,
            "height": row.height,
            "file_name": row.file_name.rpartition("/")[2],
        }
        assert sorted(told["annotations"][0]) == sorted(
            ["id", "segmentation", "bbox", "area", "predicted_iou", "stability_score", "crop_box", "point_coords"]
        )


def test_images_stand_before_their_masks_and_are_the_bytes_of_the_source(output: WorkerContext, tmp_path: Path) -> None:
    """WebDataset and SA-1B's readers want neighbours of one stem, under the name that the JSON says."""
    exported(output, tmp_path / "to", Form.SA1B, images=True)
    found = members(tmp_path / "to")
    assert list(found)[0::2] == [name.replace(".json", ".png") for name in list(found)[1::2]]
    with tarfile.open(Path(output.out).parent / "in.tar") as source:
        stored = [source.extractfile(info).read() for info in source]  # type: ignore[union-attr]
    for name, data in found.items():
        if name.endswith(".png"):
            assert data == stored[int(name[3:-4])]
            assert json.loads(found[name.replace(".png", ".json")])["image"]["file_name"] == name
    read = open_labelled(str(tmp_path / "to"), STORE)
    assert read.pixels(0, max_pixels=10**6).shape[:2] == read.masks(0).hw


def test_the_index_says_which_member_belongs_to_which_file(output: WorkerContext, tmp_path: Path) -> None:
    """Ids alone tell nobody which photograph they are of."""
    exported(output, tmp_path / "to", Form.SA1B)
    lines = (tmp_path / "to" / "index.csv").read_text().splitlines()
    assert lines[0] == "image_id,file_name,source,path,width,height,masks"
    assert lines[1].startswith(f"0,im0.png,{Path(output.out).parent}/in.tar,sa_000000.tar/sa_0.json,")
    assert len(lines) == 1 + sum(bool(row.masks) for row in ok_rows(output))


def test_a_large_tar_is_continued_in_another(
    output: WorkerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk of large images must not need all of them in memory."""
    exported(output, tmp_path / "whole", Form.SA1B, images=True)
    monkeypatch.setattr("pipeline.export.sa1b.TAR_BYTES", 60_000)
    exported(output, tmp_path / "to", Form.SA1B, images=True)
    names = [name for name in files_at(tmp_path / "to") if name.endswith(".tar")]
    assert {"sa_000000.tar", "sa_000002.tar", "sa_000002_1.tar"} <= set(names)
    assert members(tmp_path / "to") == members(tmp_path / "whole")


def test_an_image_that_is_not_what_it_was_is_left_out_and_named(tmp_path: Path) -> None:
    """Masks beside other pixels would teach nonsense, and no reader would see it."""
    source = write_source(tmp_path / "in" / "in.tar", ["a.png", "b.png", "c.png"])
    with tarfile.open(source) as tar:
        place = tar.getmembers()[2].offset_data
    context = make_output(source, str(tmp_path / "out"), STORE)
    data = bytearray(source.read_bytes())
    data[place + 100] ^= 1
    source.write_bytes(data)
    found = exported(context, tmp_path / "to", Form.SA1B, images=True)
    assert (found.total.images, found.total.left_out) == (2, 1)
    assert "c.png: its bytes are not those" in found.total.reasons[0]
    assert "sa_2.json" not in members(tmp_path / "to")
    source.unlink()
    found = exported(context, tmp_path / "gone", Form.SA1B, images=True)
    assert found.total.left_out == 3


def test_images_come_out_of_a_table_too_and_are_called_by_their_kind(tmp_path: Path) -> None:
    """Rows of Parquet have no file, and may have no name."""
    images = [picture(number) for number in (2, 3)]
    pq.write_table(pa.table({"image": images}), tmp_path / "in.parquet")
    context = make_output(tmp_path / "in.parquet", str(tmp_path / "out"), STORE)
    exported(context, tmp_path / "to", Form.SA1B, images=True)
    found = members(tmp_path / "to")
    assert [found["sa_0.png"], found["sa_1.png"]] == images
    exported(context, tmp_path / "yolo", Form.YOLO, images=True)
    assert {path.read_bytes() for path in (tmp_path / "yolo" / "images").glob("*.png")} == set(images)


def test_images_are_refused_for_a_form_without_a_place_for_them(output: WorkerContext, tmp_path: Path) -> None:
    """Asked for and silently not given would be found out too late."""
    for form in set(Form) - {Form.SA1B, Form.YOLO, Form.LABELME, Form.DATUMARO}:
        with pytest.raises(ConfigError, match="has no place for images"):
            exported(output, tmp_path / "to", form, images=True)


def test_datasets_reads_image_and_masks_as_one_sample(
    output: WorkerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WebDataset's rule, by a reader that is not ours: neighbours of one stem, their extensions as columns."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    from datasets import load_dataset

    exported(output, tmp_path / "to", Form.SA1B, images=True)
    tars = sorted(map(str, (tmp_path / "to").glob("*.tar")))
    samples: Any = load_dataset("webdataset", data_files=tars, split="train", streaming=True)
    rows = {row.image_id: row for row in ok_rows(output) if row.masks}
    for sample in samples:
        row = rows.pop(sample["json"]["image"]["image_id"])
        assert sample["__key__"] == f"sa_{row.image_id}"
        assert sample["png"].size == (row.width, row.height)
        assert [each["segmentation"]["counts"] for each in sample["json"]["annotations"]] == [
            mask.counts for mask in row.masks
        ]
    assert not rows
