"""Who still has to be done: the driver's book-keeping, without Ray.

Owns the states of a chunk (waiting, out, committed, given up) and the counting of its attempts.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.records import Chunk, ChunkReport
from pipeline.run.plan import Plan


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A chunk that this run will not try again. `why` is a sentence."""

    chunk: Chunk
    why: str


@dataclass
class Ledger:
    """Every chunk of the plan is in exactly one place: committed, given_up, `waiting`, or out with a worker."""

    plan: Plan
    attempts_allowed: int
    waiting: deque[Chunk] = field(default_factory=deque[Chunk])
    committed: set[str] = field(default_factory=set[str])
    """Ids of chunks whose part is in the store, whoever wrote it."""
    images_committed: int = 0
    given_up: dict[str, GivenUp] = field(default_factory=dict[str, GivenUp])
    """By chunk id."""
    reports: list[ChunkReport] = field(default_factory=list[ChunkReport])
    """Of the chunks that this driver's workers finished."""
    failures: Counter[str] = field(default_factory=Counter[str])
    """Chunk id -> attempts that failed."""

    @classmethod
    def open(cls, plan: Plan, *, committed: Iterable[str], attempts_allowed: int, from_the_start: bool) -> Ledger:
        """`from_the_start` is for the driver that made the plan. Another one begins somewhere else in the circle, so
        that two of them do not do the same chunk at the same time; the output is the same in any order."""
        ledger = cls(plan, attempts_allowed=attempts_allowed)
        ledger.waiting.extend(plan.chunks())
        ledger.note_committed(committed)
        if ledger.waiting and not from_the_start:
            ledger.waiting.rotate(random.randrange(len(ledger.waiting)))
        return ledger

    @property
    def is_complete(self) -> bool:
        return len(self.committed) == self.plan.chunk_count

    def note_committed(self, chunk_ids: Iterable[str]) -> None:
        """Parts seen in the store: nobody needs to wait for these any more."""
        new = set(chunk_ids) - self.committed
        if not new:
            return
        for chunk_id in new & self.given_up.keys():
            self._commit(self.given_up[chunk_id].chunk)
        kept: deque[Chunk] = deque()
        for chunk in self.waiting:
            if chunk.chunk_id in new:
                self._commit(chunk)
            else:
                kept.append(chunk)
        self.waiting = kept

    def take(self) -> Chunk:
        return self.waiting.popleft()

    def finish(self, chunk: Chunk, report: ChunkReport) -> None:
        self.reports.append(report)
        self._commit(chunk)

    def fail(self, chunk: Chunk, why: str) -> bool:
        """Count a failed attempt: True if the chunk waits again (at the end), False if it is given up."""
        self.failures[chunk.chunk_id] += 1
        if self.failures[chunk.chunk_id] < self.attempts_allowed:
            self.waiting.append(chunk)
            return True
        self.given_up[chunk.chunk_id] = GivenUp(chunk, why)
        return False

    def is_suspect(self, chunk: Chunk) -> bool:
        """It failed before: it runs without a neighbour, which a second death would cost an attempt."""
        return self.failures[chunk.chunk_id] > 0

    def _commit(self, chunk: Chunk) -> None:
        if chunk.chunk_id not in self.committed:
            self.committed.add(chunk.chunk_id)
            self.images_committed += chunk.stop - chunk.start
            self.given_up.pop(chunk.chunk_id, None)
