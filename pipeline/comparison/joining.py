"""Which row of one output is the same image as which row of the other, found while both are read once, side by side.

Owns the rule. Two rows are one image if their bytes have the same sha256. What is left over at the end is joined by
source and name, then by the name without folder and extension where it is the only one of its kind on both sides: a row
that never had bytes has no hash, and a copy of the images may have been encoded anew.
In memory are two parts of each output, and some 0.6 kB for each image that has no partner yet. Outputs whose plans
have one order have few of these at a time.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from pipeline.comparison.outputs import Output, Place
from pipeline.records import ImageRow


@dataclass(frozen=True, slots=True)
class Joined:
    """One image in both outputs."""

    a: Place
    b: Place
    row_a: ImageRow
    row_b: ImageRow


@dataclass(frozen=True, slots=True)
class Alone:
    """An image that has no partner yet."""

    place: Place
    sha256: str
    source: str
    file_name: str


@dataclass
class Join:
    """Iterate to the end; then `left_a` and `left_b` are the images of one output alone, in plan order."""

    a: Output
    b: Output
    left_a: list[Alone] = field(default_factory=list[Alone])
    left_b: list[Alone] = field(default_factory=list[Alone])

    def __iter__(self) -> Iterator[Joined]:
        """raises  StorageError if a store cannot be read"""
        waiting_a, waiting_b = _Waiting(self.a), _Waiting(self.b)
        while waiting_a.unread or waiting_b.unread:
            if waiting_a.position <= waiting_b.position:
                yield from (Joined(a, b, row_a, row_b) for a, row_a, b, row_b in _advance(waiting_a, waiting_b))
            else:
                yield from (Joined(a, b, row_a, row_b) for b, row_b, a, row_a in _advance(waiting_b, waiting_a))
        self.left_a, self.left_b = waiting_a.left(), waiting_b.left()
        for name in (_source_and_name, _stem):
            yield from self._by_name(name)

    def _by_name(self, name: Callable[[Alone], Hashable]) -> Iterator[Joined]:
        """The images left over whose name is the only one of its kind on both sides."""
        only_a, only_b = _only_ones(self.left_a, name), _only_ones(self.left_b, name)
        pairs = [(alone, only_b[key]) for key, alone in only_a.items() if key in only_b]
        self.left_a = _without(self.left_a, [a for a, _ in pairs])
        self.left_b = _without(self.left_b, [b for _, b in pairs])
        for a, b in pairs:
            yield Joined(a.place, b.place, self.a.row(a.place), self.b.row(b.place))


@dataclass
class _Waiting:
    """How far an output is read, and its images that wait for their partners."""

    output: Output
    part: int = 0
    by_sha256: dict[str, list[Alone]] = field(default_factory=dict[str, list[Alone]])
    without_hash: list[Alone] = field(default_factory=list[Alone])

    @property
    def unread(self) -> bool:
        return self.part < len(self.output.chunks)

    @property
    def position(self) -> float:
        """Of the next part in the plan; the lower one of two outputs is read next."""
        return self.output.position(self.part) if self.unread else float("inf")

    def add(self, alone: Alone) -> None:
        if alone.sha256:
            self.by_sha256.setdefault(alone.sha256, []).append(alone)
        else:
            self.without_hash.append(alone)

    def take(self, sha256: str) -> Place | None:
        """The first one that waits with these bytes, which waits no longer."""
        same = self.by_sha256.get(sha256)
        if not same:
            return None
        place = same.pop(0).place
        if not same:
            del self.by_sha256[sha256]
        return place

    def left(self) -> list[Alone]:
        several = [alone for same in self.by_sha256.values() for alone in same]
        return sorted([*several, *self.without_hash], key=lambda alone: alone.place)


def _advance(reading: _Waiting, other: _Waiting) -> Iterator[tuple[Place, ImageRow, Place, ImageRow]]:
    """Read one part: its rows whose partners wait in the other output, with these; the other rows wait from now on."""
    part = reading.part
    reading.part += 1
    for number, row in enumerate(reading.output.rows(part)):
        place = Place(part, number)
        partner = other.take(row.sha256)
        if partner is not None:
            yield place, row, partner, other.output.row(partner)
        else:
            reading.add(Alone(place, row.sha256, row.source, row.file_name))


def _source_and_name(alone: Alone) -> Hashable:
    return alone.source, alone.file_name


def _stem(alone: Alone) -> Hashable:
    return posixpath.splitext(posixpath.basename(alone.file_name))[0]


def _only_ones(left: list[Alone], name: Callable[[Alone], Hashable]) -> dict[Hashable, Alone]:
    found: dict[Hashable, Alone | None] = {}
    for alone in left:
        key = name(alone)
        found[key] = None if key in found else alone
    return {key: alone for key, alone in found.items() if alone is not None}


def _without(left: list[Alone], joined: list[Alone]) -> list[Alone]:
    places = {alone.place for alone in joined}
    return [alone for alone in left if alone.place not in places]
