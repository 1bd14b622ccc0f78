"""Which chunks are still to be done, and what a failed attempt leads to: the driver's book-keeping, without Ray.

Owns the states of a chunk (waiting, out with a worker, committed, given up), the counts of its attempts, and which of
its images are left out.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.plan.plan import Plan
from pipeline.progress import Standing
from pipeline.records import Attempt, Chunk, ChunkReport, GivenUp, JournalEntry, Status

DEATHS_TO_NAME = 3
"""Attempts that must end at the same image, the last of them careful, before its row is `crashed`. Two may be
chance: where processes are killed at random, the same image is hit twice once in a few hundred kills."""
NAMED_AT_FIRST = 5
"""Images that may be named before a single chunk is finished. So many point to another cause, and their rows would be
final."""
JUDGED_FROM = 100
"""Images that this driver must have done before the share of failed ones is judged."""
LOSSES_EXCUSED = 3
"""Times that a chunk's machine may be lost, or run out of memory, before the chunk is suspected of doing it."""


class Verdict(StrEnum):
    """What a failed attempt leads to; the words are for the log."""

    AGAIN = "is tried again"
    GIVEN_UP = "is given up"
    NAMED = "goes on without one image"
    EXCUSED = "goes back"
    ELSEWHERE = "is tried on another machine"


@dataclass(frozen=True, slots=True)
class Charge:
    """What an attempt's failure was counted as.

    at      the image that it accuses, if it accuses one
    failed  whether it is one of the failures of its chunk
    """

    at: int | None
    failed: bool


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
    masks: int = 0
    """In those reports."""
    statuses: Counter[str] = field(default_factory=Counter[str])
    """Of the images in those reports."""
    failures: Counter[str] = field(default_factory=Counter[str])
    """Chunk id -> attempts that failed for no image that could be named."""
    attempts: Counter[str] = field(default_factory=Counter[str])
    """Chunk id -> attempts that were begun."""
    losses: Counter[str] = field(default_factory=Counter[str])
    """Chunk id -> attempts that ended with their machine, or for want of its memory."""
    suspects: set[str] = field(default_factory=set[str])
    """Ids of chunks that run carefully from now on."""
    short_of_memory: set[str] = field(default_factory=set[str])
    """Those of them that met the end of their machine's memory."""
    deaths: Counter[int] = field(default_factory=Counter[int])
    """Ordinal of an image -> attempts that ended at it."""
    charges: defaultdict[str, dict[str, Charge]] = field(default_factory=lambda: defaultdict(dict))
    """Chunk id -> key of an attempt -> what it was charged with."""
    again: set[str] = field(default_factory=set[str])
    """Ids of chunks whose part is there, and whose failed rows are tried once more."""
    crashed: defaultdict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    """Chunk id -> its images that are left out from now on, and why."""

    images_total: int = 0
    """Of all chunks, wherever they are."""

    @classmethod
    def open(
        cls,
        plan: Plan,
        *,
        committed: Iterable[str],
        attempts_allowed: int,
        from_the_start: bool,
        again: Iterable[str] = (),
    ) -> Ledger:
        """`again` are committed chunks whose failed rows are tried once more.

        `from_the_start` is for the driver that made the plan. Any other begins at a random chunk and goes round, so
        that two drivers rarely do the same chunk at the same time. The output is the same in any order."""
        ledger = cls(plan, attempts_allowed=attempts_allowed, again=set(again), images_total=plan.image_count)
        ledger.waiting.extend(plan.chunks())
        ledger.note_committed(committed)
        if ledger.waiting and not from_the_start:
            ledger.waiting.rotate(random.randrange(len(ledger.waiting)))
        return ledger

    @property
    def is_complete(self) -> bool:
        return len(self.committed) == self.plan.chunk_count

    @property
    def failed(self) -> int:
        """Images of the chunks that this driver's workers finished that are not ok."""
        return self.statuses.total() - self.statuses[Status.OK]

    @property
    def nothing_works(self) -> bool:
        """Images were named one after the other and no chunk was finished: then the machines or the model are at fault.
        A later driver begins with other chunks, so that one full of bad images does not stop it again."""
        return not self.reports and sum(map(len, self.crashed.values())) >= NAMED_AT_FIRST

    def failed_more_than(self, share: float) -> bool:
        """Whether more than this share of the images that this driver has done has failed."""
        images = self.statuses.total()
        return images >= JUDGED_FROM and self.failed > share * images

    def standing(self, *, in_flight: int, workers_ready: int, workers_wanted: int) -> Standing:
        """in_flight  images done of chunks that are not finished"""
        return Standing(
            images_done=self.images_committed + in_flight,
            images_total=self.images_total,
            counted=self.statuses.total(),
            masks=self.masks,
            failed=self.failed,
            workers_ready=workers_ready,
            workers_wanted=workers_wanted,
        )

    def note_committed(self, chunk_ids: Iterable[str]) -> None:
        """Parts were seen in the store; their chunks need not be done any more."""
        new = set(chunk_ids) - self.committed - self.again
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

    def take(self) -> Attempt:
        """The next chunk; a suspect one is to be done carefully."""
        chunk = self.waiting.popleft()
        self.attempts[chunk.chunk_id] += 1
        return Attempt(
            chunk,
            number=self.attempts[chunk.chunk_id],
            careful=self.is_suspect(chunk),
            crashed=dict(self.crashed[chunk.chunk_id]),
            again=chunk.chunk_id in self.again,
        )

    def put_back(self, chunk: Chunk) -> None:
        """It had not begun, or could not be watched."""
        self.waiting.appendleft(chunk)

    def finish(self, chunk: Chunk, report: ChunkReport) -> None:
        self.reports.append(report)
        self.masks += report.masks
        self.statuses.update(report.images)
        self._commit(chunk)

    def excuse(self, attempt: Attempt, entry: JournalEntry | None, why: str) -> Verdict:
        """Its machine was lost. After LOSSES_EXCUSED of them the chunk is blamed as for any other failure."""
        chunk_id = attempt.chunk.chunk_id
        self.losses[chunk_id] += 1
        if self.losses[chunk_id] > LOSSES_EXCUSED:
            return self.blame(attempt, entry, why)
        return self.let_go(attempt, entry, why)

    def let_go(self, attempt: Attempt, _entry: JournalEntry | None, _why: str) -> Verdict:
        """Its machine was lost, and so many others that no chunk is suspected of it."""
        self.put_back(attempt.chunk)
        return Verdict.EXCUSED

    def take_back(self, attempts: Iterable[Attempt], *, lost: bool = False) -> None:
        """The machines of these attempts turn out to be at fault: what they were charged with is as if it had not been.

        lost  the machines are gone, which excuses a chunk as often as in `excuse`
        """
        for attempt in attempts:
            chunk_id = attempt.chunk.chunk_id
            if attempt.key not in self.charges[chunk_id] or (lost and self.losses[chunk_id] >= LOSSES_EXCUSED):
                continue
            self.losses[chunk_id] += lost
            self._uncharge(chunk_id, self.charges[chunk_id].pop(attempt.key))
            if not self.charges[chunk_id] and chunk_id not in self.short_of_memory:
                self.suspects.discard(chunk_id)

    def _uncharge(self, chunk_id: str, charge: Charge) -> None:
        if charge.at is not None:
            self.deaths[charge.at] -= 1
            if self.deaths[charge.at] < DEATHS_TO_NAME:
                self.crashed[chunk_id].pop(charge.at, None)
        if charge.failed:
            if chunk_id in self.given_up and self.failures[chunk_id] == self.attempts_allowed:
                self.put_back(self.given_up.pop(chunk_id).chunk)
            self.failures[chunk_id] -= 1

    def spare(self, attempt: Attempt, entry: JournalEntry | None, why: str) -> Verdict:
        """Its machine had no memory left: the next attempt is careful, which takes the least memory there is."""
        self.suspects.add(attempt.chunk.chunk_id)
        self.short_of_memory.add(attempt.chunk.chunk_id)
        return self.excuse(attempt, entry, why)

    def blame(self, attempt: Attempt, entry: JournalEntry | None, why: str) -> Verdict:
        """An attempt has failed. `entry` is what it was at, if that is known.

        An attempt accuses the image that it was at. A careful one has one image alone to accuse, and if it is not the
        first to do so names it: the chunk goes on without. Any other failure is the chunk's, which is given up after
        `attempts_allowed` of them.
        """
        chunk = attempt.chunk
        self.suspects.add(chunk.chunk_id)
        at = None if entry is None else entry.ordinal
        if at is not None:
            self.deaths[at] += 1
        if attempt.careful and at is not None:
            self.charges[chunk.chunk_id][attempt.key] = Charge(at, failed=False)
            self.waiting.append(chunk)
            if self.deaths[at] < DEATHS_TO_NAME:
                return Verdict.AGAIN
            self.crashed[chunk.chunk_id][at] = f"{DEATHS_TO_NAME} attempts at this image failed: {why}"
            return Verdict.NAMED
        return self._fail(attempt, at, why)

    def refuse(self, attempt: Attempt, why: str) -> Verdict:
        """The store refused the worker, which no image is suspected of."""
        return self._fail(attempt, None, why)

    def give_up_source(self, attempt: Attempt, shard: str, why: str) -> int:
        """The source is not what was planned: the attempt's chunk, or all that wait of its shard, are not tried again.

        Returns how many chunks that are.
        """
        lost = [attempt.chunk, *(chunk for chunk in self.waiting if chunk.shard == shard)]
        self.waiting = deque(chunk for chunk in self.waiting if chunk.shard != shard)
        self.given_up |= {chunk.chunk_id: GivenUp(chunk, why) for chunk in lost}
        return len(lost)

    def is_over(self, chunk_id: str) -> bool:
        """Nobody works on this chunk any more."""
        return chunk_id in self.committed or chunk_id in self.given_up

    def is_suspect(self, chunk: Chunk) -> bool:
        """It failed before. It runs carefully and alone, so that another death costs no other chunk an attempt."""
        return chunk.chunk_id in self.suspects

    def _fail(self, attempt: Attempt, at: int | None, why: str) -> Verdict:
        chunk = attempt.chunk
        self.charges[chunk.chunk_id][attempt.key] = Charge(at, failed=True)
        self.failures[chunk.chunk_id] += 1
        if self.failures[chunk.chunk_id] < self.attempts_allowed:
            self.waiting.append(chunk)
            return Verdict.AGAIN
        self.given_up[chunk.chunk_id] = GivenUp(chunk, why)
        return Verdict.GIVEN_UP

    def _commit(self, chunk: Chunk) -> None:
        if chunk.chunk_id not in self.committed:
            self.committed.add(chunk.chunk_id)
            self.images_committed += chunk.stop - chunk.start
            self.given_up.pop(chunk.chunk_id, None)
