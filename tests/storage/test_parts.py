"""Parts: what goes in comes out, the same bytes every time, and other people's readers take them as they are."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from pipeline.errors import StorageError
from pipeline.plan.layout import PART_SUFFIX
from pipeline.records import ImageRow, Status
from pipeline.settings import Format
from pipeline.storage.parts import count_part, read_part, write_part
from tests.storage.samples import METADATA, a_mask, a_row, many_rows, some_rows

ROOT = Path(__file__).resolve().parents[2]
# pycocotools' own call of numpy, when it decodes
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
BOTH = pytest.mark.parametrize("format", list(Format))


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
        "from tests.storage.samples import METADATA, many_rows\n"
        "from pipeline.settings import Format\n"
        "from pipeline.storage.parts import write_part\n"
        "metadata = dict(sorted(METADATA.items(), reverse=True))\n"
        "data = write_part(many_rows(), format=Format(sys.argv[1]), metadata=metadata)\n"
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
    here = write_part(many_rows(), format=format, metadata=METADATA)
    assert digests == {hashlib.sha256(here).hexdigest()}


@BOTH
@pytest.mark.parametrize("rows", [[], some_rows(), many_rows()], ids=len)
def test_counting_a_part_says_what_reading_it_would(format: Format, rows: list[ImageRow]) -> None:
    """A finished run is recounted whole, and making objects of a billion masks would take longer than the run."""
    data = write_part(rows, format=format, metadata=METADATA)
    counts, part = count_part(data, format=format), read_part(data, format=format)
    assert counts.statuses == Counter(str(row.status) for row in part.rows)
    assert counts.masks == sum(len(row.masks) for row in part.rows)
    assert counts.metadata == part.metadata
    assert counts.rows == len(rows)


@BOTH
@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 3], lambda _: b"", lambda _: b"nonsense" * 200])
def test_a_part_that_is_none_is_a_storage_error(format: Format, damage: Any) -> None:
    """`verify` must say so, not crash."""
    data = damage(write_part(some_rows(), format=format, metadata={}))
    for act in (read_part, count_part):
        with pytest.raises(StorageError, match=r"^s3://b/x is damaged .*; delete it"):
            act(data, format=format, name="s3://b/x")


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
        for act in (read_part, count_part):
            with pytest.raises(StorageError, match="damaged"):
                act(hurt, format=Format.PARQUET)


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
