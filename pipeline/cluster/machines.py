"""Which machines workers fail on, and are not placed on any more.

Owns the counting. Does not know Ray; the crew says what failed where.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

FAILED_STARTS = 3
"""Workers in a row that did not start on a machine: then it is avoided, or the job stops if there is no other."""
FAILED_PLACINGS = 10
"""Workers in a row that died before it was known where they were: their machines may have been lost with them."""
DEATHS = 5
"""Workers in a row that died on a machine, each with other chunks: then it is avoided if there is another."""


@dataclass
class _Record:
    failed_starts: int = 0
    deaths: int = 0
    chunks: set[str] = field(default_factory=set[str])
    """At work when a worker died here. A further death with one of them does not count: the chunk may be what kills."""


@dataclass
class Machines:
    """Keys are node ids; an empty one stands for a worker that was never placed."""

    avoided: dict[str, str] = field(default_factory=dict[str, str])
    """Why no worker is placed there any more, in a sentence."""
    _records: defaultdict[str, _Record] = field(default_factory=lambda: defaultdict(_Record))

    def note_placed(self) -> None:
        """A worker's process runs somewhere."""
        self._records.pop("", None)

    def note_started(self, node: str) -> None:
        """A worker is ready to work."""
        self._records[node].failed_starts = 0

    def note_finished(self, node: str) -> None:
        """A chunk was finished there, so the machine is not to blame for what failed before."""
        self._records.pop(node, None)

    def note_failed_start(self, node: str) -> bool:
        """True if it is time to avoid the machine."""
        self._records[node].failed_starts += 1
        return self._records[node].failed_starts >= (FAILED_STARTS if node else FAILED_PLACINGS)

    def note_death(self, node: str, chunk_ids: Iterable[str]) -> bool:
        """True if it is time to avoid the machine."""
        record, chunks = self._records[node], set(chunk_ids)
        if not chunks & record.chunks:
            record.deaths += 1
        record.chunks |= chunks
        return record.deaths >= DEATHS
