"""Which machines workers fail on, and get no chunk or no worker any more.

Owns the counting, and what is taken for a machine's fault. Does not know Ray; the crew says what failed where.

What a store refuses a worker may be the fault of the worker's machine, of the store, or of the chunk. Another machine
tells them apart. So a machine at which a chunk failed gets no other until one of those that failed there has ended
elsewhere: if it is done there, this speaks against the machine; if it fails there as well, it does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from pipeline.records import Attempt

FAILED_STARTS = 3
"""Workers in a row that did not start on a machine: then it is avoided, or the job stops if there is no other."""
FAILED_PLACINGS = 10
"""Workers in a row that died before it was known where they were: their machines may have been lost with them."""
DEATHS = 5
"""Workers in a row that died on a machine, each with other chunks: then it is avoided if there is another."""
PROOFS = 3
"""Times in a row that a chunk which failed on a machine was done by another one: then it is avoided. What failed at the
same time counts once."""
MANY = 12
"""So many machines that fail are all of them if they are more than half."""
STORM_S = 60.0
STORM_SHARE = 0.1
STORM_LEAST = 3
"""Machines that are lost within STORM_S, each with other chunks, as a share of all and at least: then no chunk is
suspected of taking its machine along."""


@dataclass
class _Record:
    """Since the last chunk that was finished on a machine."""

    failed_starts: int = 0
    deaths: int = 0
    chunks: set[str] = field(default_factory=set[str])
    """At work when a worker died here. A further death with one of them does not count: the chunk may be what kills."""
    on_trial: set[str] = field(default_factory=set[str])
    """Chunks that failed here, and that another machine is to try."""
    proofs: int = 0
    failed: list[Attempt] = field(default_factory=list[Attempt])


@dataclass
class Machines:
    """Keys are node ids; an empty one stands for a worker that was never placed."""

    avoided: dict[str, str] = field(default_factory=dict[str, str])
    """Why no worker is placed there any more, in a sentence."""
    barred: set[str] = field(default_factory=set[str])
    """Those of them whose workers get no chunk any more either."""
    _records: defaultdict[str, _Record] = field(default_factory=lambda: defaultdict(_Record))
    _first_failed: dict[str, str] = field(default_factory=dict[str, str])
    """Chunk id -> the machine of its first failure; empty once it has failed on another one."""
    _lost: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict[str, tuple[float, frozenset[str]]])
    """Of the last STORM_S: when each was lost, and its chunks."""

    def note_placed(self) -> None:
        """A worker's process runs somewhere."""
        self._records.pop("", None)

    def note_started(self, node: str) -> None:
        """A worker is ready to work."""
        if node in self._records:
            self._records[node].failed_starts = 0

    def note_finished(self, node: str, chunk_id: str) -> str:
        """A chunk was finished there, so the machine is not to blame for what failed before.

        Returns the machine that it is time to avoid, because it failed at this chunk and others; else "".
        """
        self._records.pop(node, None)
        first = self._first_failed.pop(chunk_id, "")
        record = self._records.get(first)
        if record is None or chunk_id not in record.on_trial:
            return ""
        record.on_trial.clear()
        record.proofs += 1
        return first if record.proofs >= PROOFS else ""

    def note_failed_start(self, node: str) -> bool:
        """True if it is time to avoid the machine."""
        self._records[node].failed_starts += 1
        return self._records[node].failed_starts >= (FAILED_STARTS if node else FAILED_PLACINGS)

    def note_death(self, node: str, attempts: Sequence[Attempt]) -> bool:
        """True if it is time to avoid the machine."""
        record, chunks = self._records[node], {attempt.chunk.chunk_id for attempt in attempts}
        record.failed += attempts
        if not chunks & record.chunks:
            record.deaths += 1
        record.chunks |= chunks
        return record.deaths >= DEATHS

    def note_refused(self, node: str, attempt: Attempt, at_hand: Collection[str]) -> bool:
        """A store refused or failed a worker there. True if the chunk is not to be charged with it: it failed for the
        first time, and another of the machines `at_hand` may do it."""
        chunk_id = attempt.chunk.chunk_id
        self._records[node].failed.append(attempt)
        if node in self.barred:
            return True
        first = self._first_failed.setdefault(chunk_id, node)
        if first == node and not self.fail_alike(at_hand):
            self._records[node].on_trial.add(chunk_id)
            return True
        if first in self._records:
            self._records[first].on_trial.discard(chunk_id)
        self._first_failed[chunk_id] = ""
        return False

    def note_lost(self, node: str, chunk_ids: Collection[str], *, now: float, machines: int) -> bool:
        """A machine is gone. True if so many are, of `machines`, that none of its chunks is suspected of it."""
        chunks = frozenset(chunk_ids)
        self._lost = {lost: what for lost, what in self._lost.items() if now - what[0] < STORM_S}
        mates = self._lost[node][1] if node in self._lost else frozenset[str]()
        self._lost[node] = (now, mates | chunks)
        others = sum(lost != node and not chunks & held for lost, (_, held) in self._lost.items())
        return others + 1 >= max(STORM_LEAST, STORM_SHARE * (machines + len(self._lost)))

    def forget_trials(self, is_over: Callable[[str], bool]) -> None:
        """Chunks that have ended without a word of a machine: committed by another driver, or given up."""
        for record in self._records.values():
            record.on_trial = {chunk_id for chunk_id in record.on_trial if not is_over(chunk_id)}

    def idle(self, at_hand: Collection[str]) -> set[str]:
        """Those that get no chunk now: barred, or with chunks that others are to try first."""
        on_trial = {node for node, record in self._records.items() if record.on_trial}
        return self.barred if not on_trial or self.fail_alike(at_hand) else self.barred | on_trial

    def fail_alike(self, at_hand: Collection[str]) -> bool:
        """Whether the machines that are there fail one like the other, so that none of them is at fault."""
        failing = sum(self._fails(node) for node in at_hand)
        return failing == len(at_hand) or (failing >= MANY and 2 * failing > len(at_hand))

    def take_failed(self, node: str) -> list[Attempt]:
        """The attempts that failed there since the last finished chunk, each once: the machine is at fault."""
        record = self._records.get(node, _Record())
        taken, record.failed = record.failed, []
        return taken

    def take_failed_on_lost(self, alive: Collection[str]) -> list[Attempt]:
        """As `take_failed`, for all machines that are gone. Their records are dropped."""
        lost = [node for node in self._records if node and node not in alive]
        return [attempt for node in lost for attempt in self._records.pop(node).failed]

    def _fails(self, node: str) -> bool:
        record = self._records.get(node)
        return record is not None and bool(record.failed_starts or record.deaths or record.failed)
