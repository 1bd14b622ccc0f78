"""Parts of SA-1B annotation files: exactly the published format, and names that are safe to unpack."""

from __future__ import annotations

import io
import json
import math
import tarfile
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from pycocotools import mask as coco

from pipeline.errors import ContractError
from pipeline.records import ImageRow
from pipeline.settings import Format
from pipeline.storage.parts import sa1b_annotation, write_part
from tests.storage.samples import METADATA, a_mask, a_row, some_rows

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
    assert list(files) == ["__maskmill__", "sa_5.json", "folder/é.json"]
    ledger = files["__maskmill__"]
    assert [(e["image_id"], e["status"], e["masks"], e["json"]) for e in ledger["images"]] == [
        (5, "ok", 3, "sa_5.json"),
        (6, "ok", 0, None),
        (7, "unreadable", 0, None),
        (8, "too_large", 0, None),
        (2**32 + 1, "ok", 1, "folder/é.json"),
    ]
    assert ledger["images"][2]["error"] == "image file is truncated"
    assert ledger["metadata"]["model"] == "tiny"


@pytest.mark.parametrize(
    ("file_name", "member"),
    [
        ("sa_1.jpg", "sa_1.json"),
        ("a/b/photo.v2.JPEG", "a/b/photo.v2.json"),
        ("no extension", "no extension.json"),
        ("12:30.jpg", "12:30.json"),
        ("../up.jpg", "sa_77.json"),
        ("a/../../up.jpg", "sa_77.json"),
        ("./a.jpg", "sa_77.json"),
        ("a//b.jpg", "sa_77.json"),
        ("/etc/passwd.jpg", "sa_77.json"),
        ("C:/x.jpg", "sa_77.json"),
        ("a\\..\\b.jpg", "sa_77.json"),
        ("new\nline.jpg", "sa_77.json"),
        ("tab\tnul\0.jpg", "sa_77.json"),
        ("right\u202eto left.jpg", "sa_77.json"),
        ("n" * 300 + ".jpg", "sa_77.json"),
        ("s3://bucket/a.jpg", "sa_77.json"),
        ("", "sa_77.json"),
        ("folder/", "sa_77.json"),
    ],
)
def test_a_hostile_name_never_becomes_a_member_name(file_name: str, member: str) -> None:
    """Users unpack parts with whatever tool they have; the name stays readable in the ledger."""
    files = coco_rle(a_row(77, file_name=file_name))
    assert list(files) == ["__maskmill__", member]
    assert files["__maskmill__"]["images"][0]["file_name"] == file_name
    assert "/" not in files[member]["image"]["file_name"]


def test_names_that_repeat_in_any_case_get_their_ids() -> None:
    """Two images of one name must not unpack over each other, on file systems that ignore case neither."""
    names = ("a.jpg", "a.jpg", "A.png", "sa_1.jpg", "b.jpg", "x/a.jpg")
    rows = [a_row(image_id, file_name=name) for image_id, name in enumerate(names)]
    assert list(coco_rle(*rows)) == [
        "__maskmill__",
        "a.json",
        "sa_1.json",
        "sa_2.json",
        "sa_3.json",
        "b.json",
        "x/a.json",
    ]


def test_tar_members_say_nothing_of_time_or_user() -> None:
    """The bytes must not depend on who wrote them, and when."""
    data = write_part(some_rows(), format=Format.COCO_RLE, metadata=METADATA)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


def test_a_number_that_json_cannot_hold_is_a_contract_error() -> None:
    """`NaN` in a JSON file is refused by strict readers; a mask with one is a bug in the generator."""
    with pytest.raises(ContractError, match=r"sa_5\.json"):
        coco_rle(a_row(5, masks=(replace(a_mask(0), predicted_iou=math.nan),)))
