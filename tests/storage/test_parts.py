"""Parts: what goes in comes out, the same bytes every time, and other people's readers take them as they are."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from pipeline.errors import ContractError, StorageError
from pipeline.records import ImageRow, Mask, Status
from pipeline.settings import Format
from pipeline.storage.parts import PART_SUFFIX, read_part, sa1b_annotation, write_part

ROOT = Path(__file__).resolve().parents[2]
METADATA = {"model": "tiny", "plan": "0a1b", "recipe": '{"points_per_side": 32}', "note": "é"}
# pycocotools' own call of numpy, when it decodes
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
BOTH = pytest.mark.parametrize("format", list(Format))


def a_mask(index: int, *, height: int = 40, width: int = 60) -> Mask:
    """A rectangle, as the generator would describe it; every field different from mask to mask."""
    x0, y0, w, h = 2 + index, 3, 10 + index, 20
    mask_HW = np.zeros((height, width), np.uint8, order="F")
    mask_HW[y0 : y0 + h, x0 : x0 + w] = 1
    counts: Any = coco.encode(mask_HW)["counts"]
    return Mask(
        counts=counts.decode(),
        bbox_xywh=(float(x0), float(y0), float(w - 1), float(h - 1)),
        area=int(mask_HW.sum()),
        predicted_iou=1.0 + index / 7,
        stability_score=1.0 - index / 70,
        point_xy=(x0 + 0.9375, y0 + 1 / 3),
        crop_box_xywh=(0.0, 0.0, float(width), float(height)),
        crop_layer=index % 3,
        multimask_index=(index + 1) % 3,
    )


def a_row(image_id: int = 5, mask_count: int = 3, **changes: Any) -> ImageRow:
    row = ImageRow(
        image_id=image_id,
        file_name=f"sa_{image_id}.jpg",
        source=f"s3://bucket/sa_000.tar#{image_id}",
        status=Status.OK,
        width=60,
        height=40,
        exif_orientation=6,
        sha256="ab" * 32,
        masks=tuple(a_mask(index) for index in range(mask_count)),
        first_annotation_id=image_id % 2**32 * 2**20 + 1 if mask_count else 0,
    )
    return replace(row, **changes)


def some_rows() -> list[ImageRow]:
    return [
        a_row(5),
        a_row(6, 0),
        ImageRow(7, "bad\n<b>.jpg", "/data/bad.jpg", Status.UNREADABLE, "image file is truncated"),
        ImageRow(8, "big.jpg", "/data/big.jpg", Status.TOO_LARGE, "…", width=99_999, height=99_999, sha256="cd" * 32),
        a_row(2**32 + 1, 1, file_name="folder/é.png", exif_orientation=1),
    ]


def tar_members(data: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        files = {info.name: tar.extractfile(info) for info in tar}
        return {name: json.load(file) for name, file in files.items() if file is not None}


def coco_rle(*rows: ImageRow) -> dict[str, Any]:
    return tar_members(write_part(rows, format=Format.COCO_RLE, metadata=METADATA))


def parquet(*rows: ImageRow) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(write_part(rows, format=Format.PARQUET, metadata=METADATA)))


# ---- both formats


@BOTH
def test_rows_and_metadata_come_back_as_they_were_written(format: Format) -> None:
    """Reports, exports and checks work on parts alone; floats must keep every bit."""
    part = read_part(write_part(some_rows(), format=format, metadata=METADATA), format=format)
    assert list(part.rows) == some_rows()
    assert METADATA.items() <= part.metadata.items()
    assert part.metadata["schema_version"] == "1"
    assert part.metadata["bbox_convention"].startswith("XYWH, w = xmax - xmin")


@BOTH
@pytest.mark.parametrize("rows", [[], [a_row(1, 0)], [ImageRow(1, "a", "b", Status.MISSING)]], ids=len)
def test_parts_without_any_mask_are_parts(format: Format, rows: list[ImageRow]) -> None:
    """An empty chunk of the sky is a result."""
    assert list(read_part(write_part(rows, format=format, metadata={}), format=format).rows) == rows


@BOTH
def test_the_same_rows_give_the_same_bytes_in_any_process(format: Format) -> None:
    """Two workers that do the same chunk must make the same part, whatever their hash seeds and dictionary orders."""
    script = (
        "import sys, hashlib\n"
        "from tests.storage.test_parts import METADATA, some_rows\n"
        "from pipeline.settings import Format\n"
        "from pipeline.storage.parts import write_part\n"
        "metadata = dict(sorted(METADATA.items(), reverse=True))\n"
        "data = write_part(some_rows() * 60, format=Format(sys.argv[1]), metadata=metadata)\n"
        "sys.stdout.write(hashlib.sha256(data).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, format],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = write_part(some_rows() * 60, format=format, metadata=METADATA)
    assert digests == {hashlib.sha256(here).hexdigest()}


@BOTH
@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda _: b"", lambda _: b"nonsense" * 200])
def test_a_part_that_is_none_is_a_storage_error(format: Format, damage: Any) -> None:
    """`verify` must say so, not crash."""
    with pytest.raises(StorageError):
        read_part(damage(write_part(some_rows(), format=format, metadata={})), format=format)


@BOTH
def test_a_part_written_by_the_first_version_can_be_read(format: Format) -> None:
    """Datasets outlive the code that made them; the stored file is `some_rows()` as version 1 wrote it."""
    stored = (Path(__file__).parent / f"part_v1{PART_SUFFIX[format]}").read_bytes()
    assert list(read_part(stored, format=format).rows) == some_rows()


# ---- Parquet


def test_the_parquet_schema_is_the_documented_one() -> None:
    """Readers name these columns; a change is a new schema version."""
    pairs = [f"{field.name}: {field.type}" for field in parquet(a_row()).schema_arrow]
    assert pairs == [
        "image_id: int64",
        "file_name: string",
        "source: string",
        "width: int32",
        "height: int32",
        "exif_orientation: int8",
        "sha256: string",
        "status: string",
        "error: string",
        "annotations: list<element: struct<id: int64, "
        "segmentation: struct<size: list<element: int32>, counts: string>, "
        "bbox: list<element: double>, area: int64, predicted_iou: double, stability_score: double, "
        "point_coords: list<element: list<element: double>>, crop_box: list<element: double>, "
        "crop_layer: int8, multimask_index: int8>>",
    ]


def test_parquet_rows_hold_what_the_masks_say() -> None:
    """Read with pyarrow alone, as a user would."""
    (first, *_) = parquet(a_row(5)).read().to_pylist()
    annotation, mask = first["annotations"][1], a_mask(1)
    assert (first["image_id"], first["status"], first["exif_orientation"]) == (5, "ok", 6)
    assert [each["id"] for each in first["annotations"]] == [5 * 2**20 + n for n in (1, 2, 3)]
    assert annotation["segmentation"]["size"] == [40, 60]
    assert annotation["point_coords"] == [list(mask.point_xy)]
    assert (annotation["crop_layer"], annotation["multimask_index"]) == (1, 2)
    decoded_HW = coco.decode(annotation["segmentation"])
    assert int(decoded_HW.sum()) == annotation["area"]
    x, y, w, h = coco.toBbox(annotation["segmentation"])
    assert annotation["bbox"] == [x, y, w - 1, h - 1]


def test_duckdb_unnests_the_masks_and_shows_the_metadata(tmp_path: Path) -> None:
    """The quickest way to look at a dataset, for many."""
    path = tmp_path / "part.parquet"
    path.write_bytes(write_part(some_rows(), format=Format.PARQUET, metadata=METADATA))
    with duckdb.connect() as database:
        rows = database.execute(
            "select image_id, a.id, a.area, a.bbox[3], a.point_coords[1][2], a.segmentation.counts "
            f"from (select image_id, unnest(annotations) as a from '{path}') order by 1, 2"
        ).fetchall()
        said = database.execute(f"select key, value from parquet_kv_metadata('{path}')").fetchall()
        failed = database.execute(f"select count(*) from '{path}' where status <> 'ok'").fetchall()
    assert [row[0] for row in rows] == [5, 5, 5, 2**32 + 1]
    assert rows[2][1:] == (
        5 * 2**20 + 3,
        a_mask(2).area,
        a_mask(2).bbox_xywh[2],
        a_mask(2).point_xy[1],
        a_mask(2).counts,
    )
    assert dict(said)[b"model"] == b"tiny"
    assert failed == [(2,)]


def test_parquet_is_laid_out_for_partial_reads() -> None:
    """Row groups of 128 images, zstd, an index of pages, and no dictionary on counts, which never repeat."""
    data = write_part([a_row(n) for n in range(300)], format=Format.PARQUET, metadata={})
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [128, 128, 44]
    for number in range(metadata.num_columns):
        column = metadata.row_group(0).column(number)
        assert column.compression == "ZSTD"
        assert column.has_offset_index
        assert not column.has_dictionary_page
    paths = [metadata.row_group(0).column(number).path_in_schema for number in range(metadata.num_columns)]
    assert "annotations.list.element.segmentation.counts" in paths
    column = metadata.row_group(0).column(paths.index("image_id"))
    assert (column.has_column_index, column.statistics.min, column.statistics.max) == (True, 0, 127)


def test_a_flipped_bit_in_a_parquet_page_is_found() -> None:
    """Without page checksums pyarrow returns the wrong mask without a word."""
    data = write_part([a_row(n) for n in range(20)], format=Format.PARQUET, metadata={})
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    end = column.data_page_offset + column.total_compressed_size
    silent = [hurt for place in range(end - 40, end) if reads_wrong(hurt := flipped(data, place), data)]
    assert silent, "no flip went unnoticed by pyarrow itself; the test has shown nothing"
    for hurt in silent:
        with pytest.raises(StorageError, match="damaged"):
            read_part(hurt, format=Format.PARQUET)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def reads_wrong(hurt: bytes, whole: bytes) -> bool:
    try:
        return pq.read_table(io.BytesIO(hurt)) != pq.read_table(io.BytesIO(whole))
    except (pa.ArrowException, OSError):
        return False


def test_a_foreign_parquet_file_is_refused_with_its_columns() -> None:
    """Somebody's own table under data/ is no part."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    with pytest.raises(StorageError, match=r"columns are \['a'\]"):
        read_part(sink.getvalue(), format=Format.PARQUET)


# ---- SA-1B JSON

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
