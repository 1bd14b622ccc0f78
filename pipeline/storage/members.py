"""The member index: the images of one shard, as planned, in Parquet files of at most `PIECE_ROWS` rows.

Owns the columns and the cutting into pieces. Ordinals, and the ids of images without a number of their own, are known
only for the whole run. They are not in a piece but are given when it is read. So a piece is final as soon as its rows
are known.

Legend: N rows.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import StorageError
from pipeline.records import Member
from pipeline.storage.arrow import UNREADABLE, pa, pq
from pipeline.storage.kinds import sa_number

PIECE_ROWS = 65_536
"""Rows of a piece. A worker reads one piece for a chunk, and planning never holds more rows than this as objects. The
number is part of the plan format."""
_ROW_GROUP = 4096
_SCHEMA: Any = pa.schema(
    [
        ("number", pa.int64()),  # the n of an `sa_<n>` name that no other image has; null for all others
        ("key", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("etag", pa.string()),
        ("broken", pa.string()),
    ]
)


class FoundMember(NamedTuple):
    """One image of a shard, in the shard's own order. A tuple, because there are millions of them.

    key     its name inside the shard; keys may repeat
    offset  first byte in the object at `uri`; of a zip or a Parquet file see member_bytes.py
    length  bytes; 0 means the whole object, whose size is not known yet (or no bytes at all, if `broken` is set)
    etag    the object's identity; "" if unknown
    broken  why there are no usable bytes here; "" for real members
    """

    key: str
    uri: str
    offset: int
    length: int
    etag: str
    broken: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class IndexPiece:
    """Consecutive members of a shard as one Parquet file. `numbers_N` has the n of all `sa_<n>` names in it, in any
    order."""

    data: bytes
    rows: int
    numbers_N: npt.NDArray[np.int64]


class IndexBuilder:
    """Takes members one by one and keeps them packed. The same members give the same pieces in any process."""

    def __init__(self) -> None:
        self._pieces: list[IndexPiece] = []
        self._waiting: list[FoundMember] = []

    def __len__(self) -> int:
        return len(self._pieces) * PIECE_ROWS + len(self._waiting)

    def add(self, member: FoundMember) -> None:
        self._waiting.append(member)
        if len(self._waiting) == PIECE_ROWS:
            self._pack()

    def finish(self) -> tuple[IndexPiece, ...]:
        """The pieces. All but the last have `PIECE_ROWS` rows."""
        if self._waiting:
            self._pack()
        return tuple(self._pieces)

    def _pack(self) -> None:
        numbers = [sa_number(member.key) for member in self._waiting]
        columns = [pa.array(numbers, pa.int64())]
        columns += [
            pa.array(values, field.type)
            for values, field in zip(zip(*self._waiting, strict=True), list(_SCHEMA)[1:], strict=True)
        ]
        self._pieces.append(_piece(pa.table(columns, schema=_SCHEMA)))
        self._waiting = []


def without_numbers(piece: IndexPiece, shared_N: npt.NDArray[np.int64]) -> IndexPiece:
    """The piece without these numbers: several images have them, so none may use them as its id."""
    table = pq.read_table(io.BytesIO(piece.data), schema=_SCHEMA)
    numbers_N = table.column("number").fill_null(-1).to_numpy()
    numbers = pa.array(numbers_N, mask=(numbers_N < 0) | np.isin(numbers_N, shared_N))
    return _piece(table.set_column(0, _SCHEMA.field("number"), numbers))


def _piece(table: Any) -> IndexPiece:
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        compression_level=3,
        use_dictionary=["uri", "etag", "broken"],
        write_page_checksum=True,
        store_schema=False,
    )
    numbers_N = table.column("number").drop_null().to_numpy()
    return IndexPiece(data=sink.getvalue(), rows=table.num_rows, numbers_N=numbers_N)


def read_members(
    data: bytes, *, start: int = 0, stop: int | None = None, first_ordinal: int = 0, id_base: int = 0
) -> list[Member]:
    """Rows [start, stop) of a piece, by position.

    first_ordinal  the ordinal of the piece's first row
    id_base        an image without a number of its own has this plus its ordinal as its id
    raises  StorageError if `data` is not a piece of a member index, or was damaged
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        first, groups = _groups(file, start, stop)
        table = file.read_row_groups(groups, columns=_SCHEMA.names)
        last = None if stop is None else max(0, stop - start)
        columns = [column.to_pylist() for column in table.slice(start - first, last).columns]
    except UNREADABLE as error:
        raise StorageError(f"this member index is damaged ({error}); plan the run again, into a new out") from error
    ordered = enumerate(zip(*columns, strict=True), start=first_ordinal + start)
    return [
        Member(ordinal, id_base + ordinal if number is None else number, *rest) for ordinal, (number, *rest) in ordered
    ]


def _groups(file: Any, start: int, stop: int | None) -> tuple[int, Sequence[int]]:
    """The first row of the first row group that is needed, and the indices of all row groups that are needed."""
    first_row, end, groups = start, 0, list[int]()
    for number in range(file.num_row_groups):
        begin, end = end, end + file.metadata.row_group(number).num_rows
        if begin < (end if stop is None else stop) and end > start:
            first_row = first_row if groups else begin
            groups.append(number)
    return first_row, groups
