"""Images in a column of a Parquet file: as plain bytes, or as Hugging Face's datasets keep them, a struct of bytes and
path.

Owns which column it is, the names of the images, and how a row's bytes are read: by row group, through ranges of the
file. A row group of ordinary size is read once and kept for its neighbours; of a larger one the pages are walked over.
"""

from __future__ import annotations

import functools
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import ConfigError, InputError, NotFoundError, TooManyBytesError
from pipeline.records import Status
from pipeline.storage.arrow import UNREADABLE, compute, pa, pq
from pipeline.storage.members import FoundMember, IndexBuilder, IndexPiece
from pipeline.storage.ranged import RangedFile
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import base_name

LIKELY = ("image", "img", "jpg", "jpeg", "png", "webp")
"""Names of a column of images among several that hold bytes."""
KEPT_GROUP = 64 * 2**20
"""Bytes of a row group's images up to which all of them are read at once and kept."""
KEPT_GROUPS, KEPT_FILES = 2, 4
"""A worker has two chunks at work."""
BATCH = 4
"""Rows that are decoded at a time in a larger row group."""
BUFFER = 8 * 2**20
"""Bytes of one request while the pages of a larger row group are walked over."""

T = TypeVar("T")


class ImageColumn(NamedTuple):
    """Leaves of the schema, as pyarrow names them: with the bytes, and with the images' names if there are any."""

    data: str
    path: str | None


def image_column(schema: Any, asked: str | None, uri: str) -> ImageColumn:
    """The column with the images of a file with this schema.

    asked   its name; None finds it
    raises  ConfigError if there is none, or several and none is asked for
    """
    found = {field.name: column for field in schema if (column := _column(field)) is not None}
    if asked is not None:
        if asked not in found:
            raise ConfigError(f"source: {uri} has no column {asked!r} with image bytes; it has {_told(schema)}")
        return found[asked]
    likely = [found[name] for name in LIKELY if name in found]
    if len(found) == 1 or likely:
        return likely[0] if likely else next(iter(found.values()))
    if not found:
        raise ConfigError(f"source: {uri} has no column of image bytes; it has {_told(schema)}")
    raise ConfigError(f"source: {uri} has bytes in {', '.join(found)}; say which are images: run.image_column=...")


def _column(field: Any) -> ImageColumn | None:
    if _is_binary(field.type):
        return ImageColumn(field.name, None)
    if pa.types.is_struct(field.type):
        inner = {each.name: each.type for each in field.type}
        if "bytes" in inner and _is_binary(inner["bytes"]):
            has_path = "path" in inner and pa.types.is_string(inner["path"])
            return ImageColumn(f"{field.name}.bytes", f"{field.name}.path" if has_path else None)
    return None


def _is_binary(kind: Any) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _told(schema: Any) -> str:
    names = list(schema.names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def index_rows(uri: str, store: Store, *, column: str | None) -> tuple[IndexPiece, ...]:
    """A member a row: its `offset` is the number of the row, its `length` the size of the file. Named by its path if it
    has one, else file#row.

    raises  ConfigError if this is no Parquet file or has no such column; StorageError
    """
    info = store.head(uri)
    builder, row = IndexBuilder(), 0
    with _damage_as(lambda why: ConfigError(f"source: {uri} is no Parquet file that can be read ({why})")):
        file = pq.ParquetFile(RangedFile(info, store), pre_buffer=True)
        found = image_column(file.schema_arrow, column, uri)
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            paths: list[Any] = [None] * count
            if found.path is not None:
                table = file.read_row_group(group, columns=[found.path], use_threads=False)
                paths = _leaf(table, found.path).to_pylist()
            for path in paths:
                builder.add(FoundMember(path or f"{base_name(uri)}#{row}", uri, row, info.size, info.etag))
                row += 1
    return builder.finish()


def _leaf(table: Any, leaf: str) -> Any:
    """One column of values, null where the struct around it is null."""
    column = table.column(0).combine_chunks() if table.num_rows else table.column(0)
    name = leaf.rpartition(".")[2]
    return compute().struct_field(column, name) if pa.types.is_struct(column.type) else column


@contextmanager
def _damage_as(error_of: Callable[[str], Exception]) -> Generator[None]:
    """What pyarrow raises at damage, as our error. What the store raises passes through it unchanged."""
    try:
        yield
    except UNREADABLE as error:
        raise error_of(str(error)) from error


@functools.lru_cache(maxsize=4)
def image_tables(store: Store, column: str | None) -> ImageTables:
    """The reader of the tables in a store, one for all who read them in this process."""
    return ImageTables(store, column)


@dataclass(frozen=True, eq=False)
class _Opened:
    """A file of which the end was read.

    firsts  the number of the first row of each row group, and of all rows
    """

    table: ObjectInfo
    store: Store
    metadata: Any
    column: ImageColumn
    firsts: tuple[int, ...]

    def group_of(self, row: int) -> int:
        return bisect_right(self.firsts, row) - 1

    def bytes_of(self, group: int) -> int:
        """Of the images in a row group, uncompressed."""
        of_group = self.metadata.row_group(group)
        columns = (of_group.column(number) for number in range(of_group.num_columns))
        return sum(each.total_uncompressed_size for each in columns if each.path_in_schema == self.column.data)

    def whole(self, group: int) -> Any:
        """In as few requests as it can be."""
        table = self._file(pre_buffer=True).read_row_group(group, columns=[self.column.data], use_threads=False)
        return _leaf(table, self.column.data)

    def walk(self, group: int) -> Iterator[tuple[int, Any]]:
        """(number of its first row, values) again and again."""
        row = self.firsts[group]
        file = self._file(buffer_size=BUFFER)
        for batch in file.iter_batches(BATCH, row_groups=[group], columns=[self.column.data], use_threads=False):
            values = _leaf(pa.table(batch), self.column.data)
            yield row, values
            row += len(values)

    def _file(self, **how: Any) -> Any:
        source = RangedFile(self.table, self.store)
        return pq.ParquetFile(source, metadata=self.metadata, page_checksum_verification=True, **how)


@dataclass(eq=False)
class _Walk:
    """Where the reading of a large row group has got to."""

    steps: Iterator[tuple[int, Any]]
    first: int = -1
    values: Any = ()

    def value(self, row: int) -> Any:
        while row >= self.first + len(self.values):
            self.first, self.values = next(self.steps)
        return self.values[row - self.first]

    def has_passed(self, row: int) -> bool:
        return row < self.first


class ImageTables:
    """Reads images by row. Several threads may ask; one is served at a time."""

    def __init__(self, store: Store, column: str | None) -> None:
        self._store, self._column = store, column
        self._lock = threading.Lock()
        self._files: OrderedDict[tuple[str, str], _Opened] = OrderedDict()
        self._groups: OrderedDict[tuple[str, str, int], Any] = OrderedDict()

    def read(self, table: ObjectInfo, row: int, *, limit: int) -> bytes:
        """The bytes of the image in a row of the file.

        raises  InputError if the row has none, or its row group is damaged
                TooManyBytesError above `limit`
                what `Store.read` raises, ChangedError if the file is not the one with this etag any more
        """
        with self._lock:
            opened = _kept(self._files, (table.uri, table.etag), KEPT_FILES, lambda: self._open(table))
            if row >= opened.firsts[-1]:
                raise NotFoundError(f"{table.uri} has no row {row}")
            where = f"row {row} of {table.uri}"
            with _damage_as(lambda why: InputError(Status.UNREADABLE, f"{where} cannot be read: {why}")):
                value = self._value(opened, row)
            data = value.as_buffer() if value.is_valid else None
        if data is None:
            raise InputError(Status.UNREADABLE, f"{where} has no image bytes")
        if len(data) > limit:
            raise TooManyBytesError(where, len(data))
        return bytes(data)

    def _value(self, opened: _Opened, row: int) -> Any:
        group = opened.group_of(row)
        key = (opened.table.uri, opened.table.etag, group)
        if opened.bytes_of(group) <= KEPT_GROUP:
            return _kept(self._groups, key, KEPT_GROUPS, lambda: opened.whole(group))[row - opened.firsts[group]]
        walk = self._groups.get(key)
        if walk is not None and walk.has_passed(row):
            del self._groups[key]
        return _kept(self._groups, key, KEPT_GROUPS, lambda: _Walk(opened.walk(group))).value(row)

    def _open(self, table: ObjectInfo) -> _Opened:
        with _damage_as(lambda why: InputError(Status.UNREADABLE, f"{table.uri} cannot be read: {why}")):
            metadata = pq.read_metadata(RangedFile(table, self._store))
            column = image_column(metadata.schema.to_arrow_schema(), self._column, table.uri)
            counts = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
            return _Opened(table, self._store, metadata, column, tuple(accumulate(counts, initial=0)))


K = TypeVar("K")


def _kept(held: OrderedDict[K, T], key: K, most: int, make: Callable[[], T]) -> T:
    """What is held under this key, or is made now; of the others those used last stay."""
    if key not in held:
        held[key] = make()
    held.move_to_end(key)
    while len(held) > most:
        held.popitem(last=False)
    return held[key]
