"""A user's table, as columns of words.

Owns the two forms: CSV with commas, in UTF-8, its first line the names of its columns; or Parquet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import ConfigError
from pipeline.storage.arrow import UNREADABLE, pq

_PARQUET_MAGIC = b"PAR1"
_NO_WORDS = (list, dict, bytes)


def read_table(data: bytes, name: str) -> dict[str, list[str]]:
    """Column -> its values, all of one length. A missing value of Parquet is an empty word.

    raises  ConfigError, with `name` in it, if the bytes are no such table
    """
    table = _parquet(data, name) if data.startswith(_PARQUET_MAGIC) else _csv(data, name)
    if not table or not next(iter(table.values())):
        raise ConfigError(f"{name} is a table without rows; it takes a line of column names, and a line for each image")
    return table


def _csv(data: bytes, name: str) -> dict[str, list[str]]:
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [column.strip() for column in next(lines, list[str]())]
        _check_header(header, name)
        columns: list[list[str]] = [[] for _ in header]
        for line in lines:
            if len(line) not in (0, len(header)):
                raise ConfigError(f"{name}, line {lines.line_num}: {len(line)} values for {len(header)} columns")
            for column, value in zip(columns, line, strict=False):
                column.append(value.strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{name} is neither CSV in UTF-8 nor Parquet ({error})") from error
    return dict(zip(header, columns, strict=True))


def _check_header(header: list[str], name: str) -> None:
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice or "" in header:
        what = f"{twice[0]!r} twice" if twice else "one without a name"
        raise ConfigError(f"{name}: its first line must name its columns, each once; it has {what}")


def _parquet(data: bytes, name: str) -> dict[str, list[str]]:
    try:
        columns: Mapping[str, list[Any]] = pq.read_table(io.BytesIO(data)).to_pydict()
    except UNREADABLE as error:
        raise ConfigError(f"{name} is damaged Parquet ({error})") from error
    return {column: list(_words(values, column, name)) for column, values in columns.items()}


def _words(values: list[Any], column: str, name: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, _NO_WORDS):
            raise ConfigError(f"{name}: its column {column!r} holds what is no word; leave it out")
        yield "" if value is None else str(value)
