"""Masks per image of groups of images, as a table of the user's says to which group an image belongs.

Owns the table's form and the intervals. One pass over the rows of all parts is added up as whole numbers.
Legend: R rows of the table, I images, G groups of one column (0: no value).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

import numpy as np

from pipeline.errors import ConfigError, StorageError
from pipeline.records import Status
from pipeline.report.figures import Integers
from pipeline.report.records import Group, Grouping
from pipeline.storage.columns import ImageColumns
from pipeline.storage.store import Store
from pipeline.storage.tables import read_table

KEYS = ("image_id", "source", "file_name")
"""Columns by which a table may name images; the first one that it has is taken, and none of them is a grouping."""
MOST_GROUPS = 200
LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


def read_groups(uri: str, store: Store) -> Groups:
    """raises  ConfigError if there is no table at `uri`, or none that groups images"""
    name = f"report.groups={uri}"
    try:
        data = store.read(uri)
    except StorageError as error:
        raise ConfigError(f"{name} cannot be read: {error}") from error
    return Groups(read_table(data, name), name)


class Groups:
    """The table, and what was counted of it so far."""

    def __init__(self, table: Mapping[str, Sequence[str]], name: str) -> None:
        """raises  ConfigError if the table names no images, or some twice, or has nothing to group by"""
        self._name = name
        self._key = next((key for key in KEYS if key in table), "")
        if not self._key:
            raise ConfigError(
                f"{name} must name its images in a column {', '.join(KEYS[:-1])} or {KEYS[-1]}; "
                f"its columns are {', '.join(map(repr, table))}"
            )
        self._row_of = _rows_by_key(table[self._key], self._key, name)
        columns = {column: values for column, values in table.items() if column not in KEYS}
        if not columns:
            raise ConfigError(f"{name} has only {', '.join(table)}; add a column of values to group the images by")
        self._columns = {column: _Column(column, values, name) for column, values in columns.items()}
        self._is_matched_R = np.zeros(len(self._row_of), np.bool_)
        self._an_image = ""

    def count(self, images: ImageColumns) -> None:
        """The rows of one part."""
        keys: Sequence[str | int] = {
            "image_id": images.image_id_I.tolist,
            "source": lambda: images.source_I,
            "file_name": lambda: images.file_name_I,
        }[self._key]()
        row_I = np.array([self._row_of.get(key, -1) for key in keys], np.int64)
        self._is_matched_R[row_I[row_I >= 0]] = True
        self._an_image = min([self._an_image, *map(str, keys[:1])], key=lambda each: (not each, each))
        is_ok_I = np.array(images.status_I) == str(Status.OK)
        for column in self._columns.values():
            column.count(row_I[is_ok_I], images.masks_I[is_ok_I])

    def groupings(self) -> tuple[Grouping, ...]:
        """raises  ConfigError if the table names no image of this output"""
        if not self._is_matched_R.any():
            theirs = next(iter(self._row_of))
            raise ConfigError(
                f"{self._name} names no image of this output: its {self._key} is such as {str(theirs)!r}, "
                f"that of the output such as {self._an_image!r}"
            )
        unmatched = int((~self._is_matched_R).sum())
        return tuple(column.grouping(unmatched) for column in self._columns.values())


class _Column:
    """A column's groups, and what was counted of each: images, masks, squares of masks per image."""

    def __init__(self, column: str, values: Sequence[str], name: str) -> None:
        self._column = column
        self._labels = sorted({*values} - {""})
        if len(self._labels) > MOST_GROUPS:
            raise ConfigError(
                f"{name}: its column {column!r} has {len(self._labels):,} different values, of which the first is "
                f"{self._labels[0]!r}; a report shows {MOST_GROUPS} groups at most. Leave the column out, or make its "
                "values coarser"
            )
        number_of = {label: number for number, label in enumerate(["", *self._labels])}
        self._group_R = np.array([*(number_of[value] for value in values), 0], np.int64)  # row -1: not in the table
        self._images_G, self._masks_G, self._squares_G = np.zeros((3, len(number_of)), np.int64)

    def count(self, row_I: Integers, masks_I: Integers) -> None:
        group_I = self._group_R[row_I]
        np.add.at(self._images_G, group_I, 1)
        np.add.at(self._masks_G, group_I, masks_I)
        np.add.at(self._squares_G, group_I, masks_I**2)

    def grouping(self, unmatched_rows: int) -> Grouping:
        """The largest group first."""
        groups = sorted(self._groups(), key=lambda group: (-group.images, group.name))
        return Grouping(self._column, tuple(groups), unmatched_rows, int(self._images_G[0]), LEVEL)

    def _groups(self) -> Iterator[Group]:
        counted = zip(self._images_G[1:], self._masks_G[1:], self._squares_G[1:], strict=True)
        for label, (images, masks, squares) in zip(self._labels, counted, strict=True):
            if images:
                interval = mean_interval(int(images), int(masks), int(squares))
                yield Group(label, int(images), int(masks), int(masks) / int(images), interval)


def mean_interval(count: int, total: int, squares: int) -> tuple[float, float]:
    """Of the mean of `count` numbers with this sum and this sum of squares, at `LEVEL`; see `Group`."""
    if count < 2:
        return math.nan, math.nan
    variance = (count * squares - total * total) / (count * (count - 1))
    half = _Z * math.sqrt(variance / count)
    return max(0.0, total / count - half), total / count + half


def _rows_by_key(keys: Sequence[str], key: str, name: str) -> dict[str | int, int]:
    rows: dict[str | int, int] = {}
    for row, word in enumerate(keys):
        own = _number(word, name) if key == "image_id" else word
        if own in rows:
            raise ConfigError(f"{name} has the {key} {word!r} in two rows; an image can be in one group only")
        rows[own] = row
    return rows


def _number(word: str, name: str) -> int:
    try:
        return int(word)
    except ValueError as error:
        raise ConfigError(f"{name}: its image_id {word!r} is no whole number") from error
