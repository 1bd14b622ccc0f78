"""One of the two outputs: its plan, its committed parts, and its rows part by part.

Owns which part is read when, and how many are kept: the last few, however large the output is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from pipeline.errors import ConfigError, StorageError
from pipeline.look.sample import Sampled, with_place
from pipeline.output.committed import find_committed, planned_part
from pipeline.plan.layout import part_name
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import Plan
from pipeline.records import Chunk, ImageRow
from pipeline.storage.store import Store

KEPT_PARTS = 2
"""Parts of each output in memory. Two outputs of one source are read side by side, so a row's partner is in one of
these, also where the chunks of one are larger."""


class Place(NamedTuple):
    """A row: the number of its chunk among the committed ones, and its number in the part."""

    part: int
    row: int


@dataclass
class Output:
    """A run as far as it is committed.

    chunks  those whose part is there, in plan order
    broken  a sentence for each part, or image of a part, that could not be used
    """

    out: str
    store: Store
    plan: Plan
    chunks: Sequence[Chunk]
    broken: list[str] = field(default_factory=list[str])
    _kept: OrderedDict[int, tuple[ImageRow, ...]] = field(default_factory=OrderedDict[int, tuple[ImageRow, ...]])

    @property
    def finished(self) -> bool:
        return len(self.chunks) == self.plan.chunk_count

    @cached_property
    def _index(self) -> MemberIndex:
        return MemberIndex(self.plan, out=self.out, store=self.store)

    def position(self, part: int) -> int:
        """The planned position of the first image of a committed part in the run."""
        chunk = self.chunks[part]
        return self.plan.planned(chunk.shard).first_ordinal + chunk.start

    def rows(self, part: int) -> tuple[ImageRow, ...]:
        """Of a committed part; none, and a sentence among the broken ones, if it is not that of the plan.

        raises  StorageError if the store cannot be read
        """
        if part not in self._kept:
            self._kept[part] = self._read(self.chunks[part])
            if len(self._kept) > KEPT_PARTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(part)
        return self._kept[part]

    def row(self, place: Place) -> ImageRow:
        """A row that was read before.

        raises  StorageError if the store cannot be read, or its part has changed since
        """
        rows = self.rows(place.part)
        if place.row >= len(rows):
            raise StorageError(f"{part_name(self.plan, self.chunks[place.part])} has changed while it was compared")
        return rows[place.row]

    def sampled(self, place: Place, row: ImageRow) -> Sampled:
        """The row with the place of its image's bytes."""
        try:
            return with_place(row, place.row, self.chunks[place.part], self.plan, index=self._index, out=self.out)
        except ConfigError as error:
            return Sampled(row, None, f"where it lies cannot be looked up: {error}")

    def _read(self, chunk: Chunk) -> tuple[ImageRow, ...]:
        part = planned_part(chunk, self.plan, out=self.out, store=self.store)
        if isinstance(part, str):
            self.broken.append(part)
            return ()
        return part.rows


def open_output(out: str, store: Store) -> Output:
    """raises  ConfigError if there is no run or no committed part; StorageError if the store cannot be read"""
    there = find_committed(out, store)
    return Output(out, store, there.plan, there.chunks)
