"""The part, the one object that a chunk becomes: rows to bytes and back, in the format that the run asks for.

Owns the choice of the format and the metadata that every part has. Knows no store and no names of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.records import ImageRow
from pipeline.settings import Format
from pipeline.storage.coco_rle import count_coco_rle, read_coco_rle, write_coco_rle
from pipeline.storage.parquet import count_parquet, read_parquet, write_parquet

SCHEMA_VERSION = "1"
_OF_EVERY_PART = {
    "schema_version": SCHEMA_VERSION,
    "bbox_convention": "XYWH, w = xmax - xmin, h = ymax - ymin, inclusive pixel indices (SA-1B's; COCO's is 1 larger)",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it was written: its rows, in order, and the metadata about how they were made."""

    rows: tuple[ImageRow, ...]
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class PartCounts:
    """How many rows a part has of each status, how many masks in all, and the metadata about how they were made."""

    statuses: dict[str, int]
    masks: int
    metadata: dict[str, str]

    @property
    def rows(self) -> int:
        return sum(self.statuses.values())


def write_part(rows: Sequence[ImageRow], *, format: Format, metadata: Mapping[str, str]) -> bytes:
    """The same rows and metadata give the same bytes. The metadata gains `schema_version` and `bbox_convention`."""
    said = {**metadata, **_OF_EVERY_PART}
    match format:
        case Format.PARQUET:
            return write_parquet(rows, said)
        case Format.COCO_RLE:
            return write_coco_rle(rows, said)


def read_part(data: bytes, *, format: Format, name: str = "this part") -> Part:
    """What `write_part` was given. Only the first annotation id of a row without masks is not kept; it is 0.

    raises  DamagedError, with `name` in it, if the bytes are not such a part
    """
    match format:
        case Format.PARQUET:
            return Part(*read_parquet(data, name))
        case Format.COCO_RLE:
            return Part(*read_coco_rle(data, name))


def count_part(data: bytes, *, format: Format, name: str = "this part") -> PartCounts:
    """The rows counted, without making objects of their masks.

    raises  DamagedError, with `name` in it, if the bytes are not such a part; damage inside a mask is
            found only in Parquet, which has checksums
    """
    match format:
        case Format.PARQUET:
            return PartCounts(*count_parquet(data, name))
        case Format.COCO_RLE:
            return PartCounts(*count_coco_rle(data, name))
