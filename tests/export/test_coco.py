"""COCO's JSON files as pycocotools reads them."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pipeline.export.names import reference
from pipeline.export.records import Form
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.chunk import WorkerContext
from tests.export.making import exported, make_output, ok_rows, read_json, write_source
from tests.report.making import pixels


@pytest.fixture(scope="module")
def read(output: WorkerContext, tmp_path_factory: pytest.TempPathFactory) -> Any:
    to = tmp_path_factory.mktemp("coco") / "to"
    exported(output, to, Form.COCO)
    return opened(to / "instances.json")


def opened(path: Path) -> Any:
    """pycocotools prints what it does."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_pycocotools_reads_every_mask_as_it_is_in_the_part(output: WorkerContext, read: Any) -> None:
    """Pixels, area and box: its own toBbox of the same run lengths is what stands in the file."""
    rows = ok_rows(output)
    assert read.getImgIds() == [row.image_id for row in rows]
    assert [(each["name"], each["id"]) for each in read.loadCats(read.getCatIds())] == [("object", 1)]
    seen = 0
    for row in rows:
        annotations = read.loadAnns(read.getAnnIds(imgIds=[row.image_id]))
        first = row.first_annotation_id
        assert [each["id"] for each in annotations] == list(range(first, first + len(row.masks)))
        for annotation, mask, mask_HW in zip(annotations, row.masks, pixels(row), strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # numpy's, of pycocotools' call
                assert np.array_equal(read.annToMask(annotation).astype(np.bool_), mask_HW)
            rle: Any = {"size": [row.height, row.width], "counts": mask.counts.encode()}
            assert annotation["bbox"] == list(coco_mask.toBbox(rle))
            assert annotation["area"] == int(coco_mask.area(rle)) == mask_HW.sum()
            assert (annotation["iscrowd"], annotation["category_id"]) == (0, 1)
            assert annotation["predicted_iou"] == mask.predicted_iou
            assert annotation["stability_score"] == mask.stability_score
            seen += 1
    assert seen > 100


def test_images_are_called_by_their_keys_and_none_leads_elsewhere(output: WorkerContext, read: Any) -> None:
    """Readers join this name to a folder."""
    told = {each["id"]: each for each in read.dataset["images"]}
    row = ok_rows(output)[0]
    assert told[0] == {"id": 0, "file_name": "im0.png", "width": row.width, "height": row.height}
    assert told[3]["file_name"] == "folder/one.png"
    assert (told[7]["file_name"], told[8]["file_name"]) == ("up.png", "absolute.png")


def test_what_leads_elsewhere_is_no_name() -> None:
    """Up, to the root, to a drive, or out of the line."""
    names = ("a/../b.png", "/etc/b.png", "a//b.png", "./b.png", "c\n/b.png")
    assert {reference(name, 4) for name in names} == {"b.png"}
    assert {reference(name, 4) for name in ("..", "a/..", "", "C:\\b.png", "a/\x1b.png")} == {"image_4"}
    assert reference("a b/ä.v2.png", 4) == "a b/ä.v2.png"


def test_results_are_loaded_beside_their_dataset(output: WorkerContext, read: Any, tmp_path: Path) -> None:
    """`loadRes` checks image ids, and evaluators sort by score. With a box it takes the box's area for the mask's."""
    exported(output, tmp_path / "to", Form.COCO_RESULTS)
    with contextlib.redirect_stdout(io.StringIO()):
        results = read.loadRes(str(tmp_path / "to" / "results.json"))
    masks = [(row.image_id, mask) for row in ok_rows(output) for mask in row.masks]
    loaded = results.loadAnns(results.getAnnIds())
    assert len(loaded) == len(masks)
    for result, (image_id, mask) in zip(loaded, masks, strict=True):
        assert (result["image_id"], result["category_id"]) == (image_id, 1)
        assert result["score"] == mask.predicted_iou
        assert result["segmentation"]["counts"] == mask.counts
        rle: Any = {"size": result["segmentation"]["size"], "counts": mask.counts.encode()}
        assert result["bbox"] == list(coco_mask.toBbox(rle))
    for result in (without_boxes := read_json(tmp_path / "to" / "results.json")):
        del result["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        areas = [result["area"] for result in read.loadRes(without_boxes).dataset["annotations"]]
    assert areas == [mask.area for _, mask in masks]


def test_outputs_without_masks_make_sound_files(tmp_path: Path) -> None:
    """Nothing between two brackets, not a comma too many."""
    source = write_source(tmp_path / "in.tar", ["broken.png", "broken too.png"])
    context = make_output(source, str(tmp_path / "out"), connect(StoreSettings()))
    exported(context, tmp_path / "coco", Form.COCO)
    assert opened(tmp_path / "coco" / "instances.json").getImgIds() == []
    exported(context, tmp_path / "results", Form.COCO_RESULTS)
    assert read_json(tmp_path / "results" / "results.json") == []


def test_pieces_go_when_the_whole_run_is_in_the_file(output: WorkerContext, tmp_path: Path) -> None:
    """They would double what the export takes."""
    exported(output, tmp_path / "to", Form.COCO)
    left = sorted(str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*.*"))
    assert left == ["_export/export.json", "_export/finished.json", "instances.json"]
