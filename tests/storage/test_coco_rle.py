"""Parts of SA-1B annotation files: exactly the published format, and names that are safe to unpack."""

from __future__ import annotations

import io
import json
import math
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pycocotools import mask as coco

from pipeline.errors import ContractError, StorageError
from pipeline.records import ImageRow
from pipeline.settings import Format
from pipeline.storage.parts import count_part, read_part, write_part
from pipeline.storage.sa1b import sa1b_annotation
from tests.storage.samples import METADATA, a_mask, a_row, some_rows, tar_of

# pycocotools' own call of numpy, when it decodes
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def tar_members(data: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        files = {info.name: tar.extractfile(info) for info in tar}
        return {name: json.load(file) for name, file in files.items() if file is not None}


def coco_rle(*rows: ImageRow) -> dict[str, Any]:
    return tar_members(write_part(rows, format=Format.COCO_RLE, metadata=METADATA))


FLOATS = {"type": "array", "items": {"type": "number"}}
SA1B_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image", "annotations"],
    "properties": {
        "image": {
            "type": "object",
            "additionalProperties": False,
            "required": ["image_id", "width", "height", "file_name"],
            "properties": {
                "image_id": {"type": "integer"},
                "width": {"type": "integer", "minimum": 1},
                "height": {"type": "integer", "minimum": 1},
                "file_name": {"type": "string", "pattern": "^[^/]+$"},
            },
        },
        "annotations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": [
                    "id",
                    "segmentation",
                    "bbox",
                    "area",
                    "predicted_iou",
                    "stability_score",
                    "crop_box",
                    "point_coords",
                ],
                "properties": {
                    "id": {"type": "integer", "minimum": 1, "exclusiveMaximum": 2**53},
                    "segmentation": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["size", "counts"],
                        "properties": {
                            "size": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                            "counts": {"type": "string", "minLength": 1},
                        },
                    },
                    "bbox": {**FLOATS, "minItems": 4, "maxItems": 4},
                    "area": {"type": "integer", "minimum": 1},
                    "predicted_iou": {"type": "number"},
                    "stability_score": {"type": "number"},
                    "crop_box": {**FLOATS, "minItems": 4, "maxItems": 4},
                    "point_coords": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {**FLOATS, "minItems": 2, "maxItems": 2},
                    },
                },
            },
        },
    },
}
"""The field table of the published dataset, with its strictest readers' demands (TensorFlow Datasets, Datumaro)."""


def test_the_json_has_exactly_the_keys_of_sa1b() -> None:
    """TensorFlow Datasets and Datumaro refuse one key more or less."""
    files = coco_rle(*some_rows())
    documents = [document for name, document in files.items() if name != "__maskmill__"]
    assert len(documents) == 2
    for document in documents:
        jsonschema.validate(document, SA1B_SCHEMA)


def test_numbers_in_the_json_are_floats_where_sa1b_has_floats() -> None:
    """Datumaro tests `isinstance(..., float)`: a predicted IoU of exactly 1 must be written as 1.0."""
    whole = replace(a_mask(0), predicted_iou=1, stability_score=1, bbox_xywh=(1, 2, 3, 4), point_xy=(5, 6))
    (annotation,) = coco_rle(a_row(5, masks=(whole,)))["sa_5.json"]["annotations"]
    for key in ("predicted_iou", "stability_score"):
        assert isinstance(annotation[key], float)
    for values in (annotation["bbox"], annotation["crop_box"], *annotation["point_coords"]):
        assert isinstance(values, list)
        assert all(isinstance(value, float) for value in values)
    assert isinstance(annotation["id"], int)
    assert isinstance(annotation["area"], int)
    assert all(isinstance(value, int) for value in annotation["segmentation"]["size"])
    assert isinstance(annotation["segmentation"]["counts"], str)


def test_the_json_decodes_to_the_masks_and_keeps_every_bit_of_its_floats() -> None:
    """What pycocotools sees is what was segmented."""
    document = coco_rle(a_row(5))["sa_5.json"]
    assert document == sa1b_annotation(a_row(5))
    assert document["image"] == {"image_id": 5, "width": 60, "height": 40, "file_name": "sa_5.jpg"}
    for index, annotation in enumerate(document["annotations"]):
        assert coco.decode(annotation["segmentation"]).shape == (40, 60)
        assert int(coco.area(annotation["segmentation"])) == annotation["area"]
        assert annotation["predicted_iou"] == a_mask(index).predicted_iou
        assert annotation["point_coords"] == [list(a_mask(index).point_xy)]


def test_images_without_masks_and_failed_ones_are_in_the_ledger_alone() -> None:
    """EdgeSAM and EfficientViT-SAM crash on an empty list; and yet no image may be missing without a word."""
    files = coco_rle(*some_rows())
    assert list(files) == ["__maskmill__", "sa_5.json", f"sa_{2**32 + 1}.json"]
    ledger = files["__maskmill__"]
    assert [(e["image_id"], e["status"], e["masks"], e["json"]) for e in ledger["images"]] == [
        (5, "ok", 3, "sa_5.json"),
        (6, "ok", 0, None),
        (7, "unreadable", 0, None),
        (8, "too_large", 0, None),
        (2**32 + 1, "ok", 1, f"sa_{2**32 + 1}.json"),
    ]
    assert ledger["images"][2]["error"] == "image file is truncated"
    assert ledger["metadata"]["model"] == "tiny"


@pytest.mark.parametrize(
    ("file_name", "member"),
    [
        ("sa_77.jpg", "sa_77.json"),
        ("./sa_77.jpg", "sa_77.json"),
        ("a/b/sa_77.png", "sa_77.json"),
        ("sa_0077.jpg", "sa_0077.json"),
        ("sa_1.jpg", "sa_77.json"),
        ("sa_77.v2.jpg", "sa_77.json"),
        ("SA_0077.jpg", "sa_77.json"),
        (f"sa_{'0' * 300}77.jpg", "sa_77.json"),
        ("000001.jpg", "sa_77.json"),
        ("a/b/photo.v2.JPEG", "sa_77.json"),
        ("../up.jpg", "sa_77.json"),
        ("/etc/passwd.jpg", "sa_77.json"),
        ("a\\..\\b.jpg", "sa_77.json"),
        ("new\nline.jpg", "sa_77.json"),
        ("s3://bucket/a.jpg", "sa_77.json"),
        ("", "sa_77.json"),
        ("folder/", "sa_77.json"),
    ],
)
def test_a_json_is_named_after_its_image_id(file_name: str, member: str) -> None:
    """SAM 2's trainer reads a number behind the last `_`; an SA-1B image keeps its name, and no hostile one is used."""
    files = coco_rle(a_row(77, file_name=file_name))
    assert list(files) == ["__maskmill__", member]
    assert files["__maskmill__"]["images"][0]["file_name"] == file_name
    assert "/" not in files[member]["image"]["file_name"]


def test_the_parts_of_a_run_unpack_into_one_folder(tmp_path: Path) -> None:
    """Every WebDataset shard has a 000001.jpg, and a part knows only its own; no mask may be overwritten."""
    names = ["000001.jpg", "sa_3.jpg", "b/000001.jpg", "B/000001.png"]
    rows = [a_row(image_id, file_name=name) for image_id, name in zip((0, 3, 4, 5), names, strict=True)]
    for part in (rows[:2], rows[2:]):
        data = write_part(part, format=Format.COCO_RLE, metadata={})
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(tmp_path, filter="data")
    found = {path.name: json.loads(path.read_bytes()) for path in tmp_path.glob("*.json")}
    assert found == {f"sa_{row.image_id}.json": sa1b_annotation(row) for row in rows}


@pytest.mark.parametrize("act", [read_part, count_part])
@pytest.mark.parametrize("harm", ["one is gone", "one is new"])
def test_files_that_the_ledger_does_not_name_are_damage(act: Any, harm: str) -> None:
    """A tar that somebody packed again, with a file more or less, is no part."""
    files = coco_rle(*some_rows())
    members = [(name, json.dumps(content).encode()) for name, content in files.items()]
    members = members[:-1] if harm == "one is gone" else [*members, ("new.json", b"{}")]
    with pytest.raises(StorageError, match=r"disagree: \['(sa_4294967297|new)\.json'\]"):
        act(tar_of(*members), format=Format.COCO_RLE)


def test_an_image_id_that_occurs_twice_is_a_contract_error() -> None:
    """One JSON would hide the other."""
    with pytest.raises(ContractError, match="twice"):
        coco_rle(a_row(5), a_row(5, file_name="other.jpg"))


def test_tar_members_say_nothing_of_time_or_user() -> None:
    """The bytes must not depend on who wrote them, and when."""
    data = write_part(some_rows(), format=Format.COCO_RLE, metadata=METADATA)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


def test_a_number_that_json_cannot_hold_is_a_contract_error() -> None:
    """`NaN` in a JSON file is refused by strict readers; a mask with one is a bug in the generator."""
    with pytest.raises(ContractError, match=r"sa_5\.json"):
        coco_rle(a_row(5, masks=(replace(a_mask(0), predicted_iou=math.nan),)))
