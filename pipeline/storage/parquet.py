"""A part as Parquet: one row per image, its masks nested in it.

Owns the schema (version 1) and the layout of the file. One thing is lost: the first annotation id of a row without
annotations.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from operator import attrgetter
from typing import Any

from pipeline.errors import DamagedError
from pipeline.records import ImageRow, Status
from pipeline.storage.arrow import UNREADABLE, pa, pq
from pipeline.storage.sa1b import mask_of

ROW_GROUP_IMAGES = 128
"""Row groups of 100 to 256 images cost under 1 % in size, and a reader can still fetch a few images alone."""


def _list_of(kind: Any) -> Any:
    return pa.list_(pa.field("element", kind))


ANNOTATION_TYPE: Any = pa.struct(
    [
        ("id", pa.int64()),
        ("segmentation", pa.struct([("size", _list_of(pa.int32())), ("counts", pa.string())])),
        ("bbox", _list_of(pa.float64())),
        ("area", pa.int64()),
        ("predicted_iou", pa.float64()),
        ("stability_score", pa.float64()),
        ("point_coords", _list_of(_list_of(pa.float64()))),
        ("crop_box", _list_of(pa.float64())),
        ("crop_layer", pa.int8()),
        ("multimask_index", pa.int8()),
    ]
)
IMAGE_FIELDS: Any = pa.schema(
    [
        ("image_id", pa.int64()),
        ("file_name", pa.string()),
        ("source", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("exif_orientation", pa.int8()),
        ("sha256", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
    ]
)
PART_SCHEMA: Any = IMAGE_FIELDS.append(pa.field("annotations", _list_of(ANNOTATION_TYPE)))


def write_parquet(rows: Sequence[ImageRow], metadata: Mapping[str, str]) -> bytes:
    """The same rows and metadata give the same bytes, in any process (of one pyarrow version)."""
    columns = [_column(field.type, rows, attrgetter(field.name)) for field in IMAGE_FIELDS]
    columns.append(_annotations(rows))
    sink = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=PART_SCHEMA.with_metadata(dict(sorted(metadata.items())))),
        sink,
        row_group_size=ROW_GROUP_IMAGES,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,  # counts never repeat, and the rest is small
        write_page_checksum=True,
        write_page_index=True,
    )
    return sink.getvalue()


def read_parquet(data: bytes, name: str) -> tuple[tuple[ImageRow, ...], dict[str, str]]:
    """raises  DamagedError if `data` is not a part of this schema, or was damaged."""
    table, said = _table(data, name)
    return _rows(table), said


def count_parquet(data: bytes, name: str) -> tuple[dict[str, int], int, dict[str, str]]:
    """Rows by status, masks and metadata. Every page is read and checked, but no mask becomes a Python object.

    raises  as `read_parquet`
    """
    table, said = _table(data, name)
    annotations = table.column("annotations")
    masks = sum(len(chunk.flatten()) for chunk in annotations.chunks)
    return dict(Counter(table.column("status").to_pylist())), masks, said


def open_parquet(file: Any, name: str, *, in_few_reads: bool = False) -> tuple[Any, dict[str, str]]:
    """A part as pyarrow opens it, of which nothing but the end was read; and the metadata that it says.

    in_few_reads  neighbouring columns are read at once, for a file that is a range of a store

    raises  as `read_parquet`
    """
    with parquet_damage(name):
        opened = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=in_few_reads)
        found = opened.schema_arrow
        if not found.equals(PART_SCHEMA):
            raise DamagedError(f"{name} is no part of schema version 1; its columns are {found.names}")
        said: dict[bytes, bytes] = found.metadata or {}
        return opened, {key.decode(): value.decode() for key, value in said.items()}


@contextmanager
def parquet_damage(name: str) -> Generator[None]:
    """Whatever a damaged file makes of its reader becomes a DamagedError that names it."""
    try:
        yield
    except (*UNREADABLE, UnicodeDecodeError) as error:  # the last: the metadata has no checksum of its own
        raise DamagedError(f"{name} is damaged ({error}); delete it and run again") from error


def _table(data: bytes, name: str) -> tuple[Any, dict[str, str]]:
    file, said = open_parquet(io.BytesIO(data), name)
    with parquet_damage(name):
        return file.read(), said


def _column(kind: Any, items: Sequence[Any], value: Callable[[Any], Any]) -> Any:
    return pa.array([value(item) for item in items], kind)


def _annotations(rows: Sequence[ImageRow]) -> Any:
    """The masks, built column by column. Building them from dictionaries takes six times as long."""
    masks = [mask for row in rows for mask in row.masks]
    sizes = [(row.height, row.width) for row in rows for _ in row.masks]
    ids = [row.first_annotation_id + index for row in rows for index in range(len(row.masks))]
    segmentation = pa.StructArray.from_arrays(
        [_fixed(pa.int32(), sizes), _column(pa.string(), masks, attrgetter("counts"))],
        fields=list(ANNOTATION_TYPE.field("segmentation").type),
    )
    points = _fixed(pa.float64(), [mask.point_xy for mask in masks])
    one_each = pa.array(range(len(masks) + 1), pa.int32())
    columns = {
        "id": pa.array(ids, pa.int64()),
        "segmentation": segmentation,
        "bbox": _fixed(pa.float64(), [mask.bbox_xywh for mask in masks]),
        "point_coords": pa.ListArray.from_arrays(one_each, points, type=_list_of(points.type)),
        "crop_box": _fixed(pa.float64(), [mask.crop_box_xywh for mask in masks]),
    }
    for name in ("area", "predicted_iou", "stability_score", "crop_layer", "multimask_index"):
        columns[name] = _column(ANNOTATION_TYPE.field(name).type, masks, attrgetter(name))
    structs = pa.StructArray.from_arrays(
        [columns[field.name] for field in ANNOTATION_TYPE], fields=list(ANNOTATION_TYPE)
    )
    offsets = pa.array([0, *accumulate(len(row.masks) for row in rows)], pa.int32())
    return pa.ListArray.from_arrays(offsets, structs, type=_list_of(ANNOTATION_TYPE))


def _fixed(kind: Any, items: Sequence[Sequence[float]]) -> Any:
    """A list array. Its type allows items of any length; here all have the same."""
    offsets = pa.array([0, *accumulate(map(len, items))], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array([v for item in items for v in item], kind), type=_list_of(kind))


def _rows(table: Any) -> tuple[ImageRow, ...]:
    columns = [table.column(name).to_pylist() for name in PART_SCHEMA.names]
    return tuple(_row(dict(zip(PART_SCHEMA.names, values, strict=True))) for values in zip(*columns, strict=True))


def _row(fields: dict[str, Any]) -> ImageRow:
    nested: list[dict[str, Any]] = fields.pop("annotations")
    masks = (mask_of(each, crop_layer=each["crop_layer"], multimask_index=each["multimask_index"]) for each in nested)
    status = Status(fields.pop("status"))
    first_id = int(nested[0]["id"]) if nested else 0
    return ImageRow(**fields, status=status, masks=tuple(masks), first_annotation_id=first_id)
