"""The member index: the images of one shard, as planned, in one Parquet file.

Owns its columns. A chunk reads only the row groups that it needs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from pipeline.errors import StorageError
from pipeline.records import Member
from pipeline.storage.arrow import UNREADABLE, pa, pq

_SCHEMA: Any = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("etag", pa.string()),
        ("broken", pa.string()),
    ]
)
_ROW_GROUP = 4096


def write_members(members: Sequence[Member]) -> bytes:
    """The same members give the same bytes, in any process."""
    columns = [pa.array([getattr(member, field.name) for member in members], field.type) for field in _SCHEMA]
    sink = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=_SCHEMA),
        sink,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        compression_level=3,
        use_dictionary=["uri", "etag", "broken"],
        write_page_checksum=True,
        store_schema=False,
    )
    return sink.getvalue()


def read_members(data: bytes, *, start: int = 0, stop: int | None = None) -> list[Member]:
    """Rows [start, stop) of an index, by position.

    raises  StorageError if `data` is no member index, or was damaged
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        first, groups = _groups(file, start, stop)
        table = file.read_row_groups(groups, columns=_SCHEMA.names)
        last = None if stop is None else max(0, stop - start)
        columns = [column.to_pylist() for column in table.slice(start - first, last).columns]
    except UNREADABLE as error:
        raise StorageError(f"this member index is damaged ({error}); plan the run again, into a new out") from error
    return [Member(*values) for values in zip(*columns, strict=True)]


def _groups(file: Any, start: int, stop: int | None) -> tuple[int, list[int]]:
    """The first row of the first row group that is needed, and the numbers of all of them."""
    first_row, end, groups = start, 0, list[int]()
    for number in range(file.num_row_groups):
        begin, end = end, end + file.metadata.row_group(number).num_rows
        if begin < (end if stop is None else stop) and end > start:
            first_row = first_row if groups else begin
            groups.append(number)
    return first_row, groups
