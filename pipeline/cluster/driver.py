"""The driver's loop: places chunks on workers, collects reports, and decides what follows when none comes.

Which workers there are, crew.py decides; how the attempts at a chunk are counted, ledger.py. A chunk is taken for
committed when its worker reports it, or when its part is seen in the store.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray as typed_ray
from ray.exceptions import RayTaskError

from pipeline.cluster.crew import CHUNKS_IN_FLIGHT, Crew, WorkerKind
from pipeline.cluster.journal import JournalKeeper, JournalLostError
from pipeline.cluster.ledger import Ledger, Verdict
from pipeline.cluster.metrics import Failure, RunMetrics
from pipeline.cluster.part_poller import PartPoller
from pipeline.cluster.slots import WorkerGoneError, WorkerSlot, answer_of
from pipeline.errors import ConfigError, DeniedError, DeviceError, RunError, SourceError, StorageError
from pipeline.progress import Event, Progress
from pipeline.records import Attempt, Ending, JournalEntry
from pipeline.settings import RunSettings
from pipeline.signals import StopFlag
from pipeline.texts import counted, one_line

ray: Any = typed_ray  # its annotations are partial and partly wrong

DEATHS_IN_A_ROW = 12
"""Workers that may die without a single chunk finished in between."""
REFUSALS_IN_A_ROW = 12
"""Attempts that a store may refuse without a single chunk finished in between."""
WAIT_S = 0.5
WATCH_S = 2.0
"""Seconds between two looks into the journals."""


class Driver:
    """One pass over what is waiting in the ledger.

    committed_now  ids of the chunks whose part is in the store now
    """

    def __init__(
        self,
        ledger: Ledger,
        workers: WorkerKind,
        settings: RunSettings,
        *,
        committed_now: Callable[[], set[str]],
        progress: Progress,
        metrics: RunMetrics,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._part_poller = PartPoller(committed_now)
        self._progress = progress
        self._metrics = metrics
        self.crew = Crew(workers, settings, say=progress.say)
        self._journal = JournalKeeper()
        self._journals: dict[str, Any] = {}
        """Attempts in flight, and the journal that each was told to keep."""
        self._entries: Mapping[str, JournalEntry] = {}
        """Of the attempts in flight, as last read."""
        self._next_watch = 0.0
        self._deaths = self._refusals = 0

    def run(self, stop: StopFlag, *, until: float = math.inf) -> Ending:
        """Until nothing is waiting, `stop` is set, time.monotonic() is `until`, or too many images have failed.

        raises  what a worker's loader raises if it is one of ours (ConfigError for a wrong checkpoint);
                ConfigError if a worker finds that somebody has edited the plan's index;
                RunError if workers cannot start, or keep dying, or the store is gone
        """
        try:
            while (stopped_by := self._stopped_by(stop, until)) is None:
                self._ledger.note_committed(self._part_poller.news())
                if not self._ledger.waiting and not self.crew.busy:
                    return Ending.DONE
                self.crew.fit_to(len(self.crew.busy) + len(self._ledger.waiting))
                self._dispatch()
                self._collect()
                self._watch()
                self._show()
            self._drain(stop)
            return stopped_by
        finally:
            self.crew.dismiss_all()
            self._journal.close()

    def _stopped_by(self, stop: StopFlag, until: float) -> Ending | None:
        if stop.signals:
            return Ending.STOPPED
        if time.monotonic() >= until:
            return Ending.DEADLINE
        share = self._settings.stop_after_failed_fraction
        return Ending.FAILURES if share is not None and self._ledger.failed_more_than(share) else None

    def _dispatch(self) -> None:
        idle = self.crew.idle_machines
        for depth in range(CHUNKS_IN_FLIGHT):
            for slot in self.crew.slots:
                if not self._ledger.waiting or (depth and not self._may_queue_behind()):
                    return
                if slot.node not in idle and slot.ready and len(slot.in_flight) == depth and not slot.alone:
                    self._send(slot)

    def _may_queue_behind(self) -> bool:
        """Whether the next chunk may be a worker's second. Not if few are left: these go to whoever is free first.
        Not if it is suspect: if it ended the worker, the first chunk would lose an attempt."""
        waiting = self._ledger.waiting
        return len(waiting) > len(self.crew.slots) and not self._ledger.is_suspect(waiting[0])

    def _send(self, slot: WorkerSlot) -> None:
        attempt, journal = self._ledger.take(), self._journal.on(slot.node)
        slot.alone = attempt.careful
        self._journals[attempt.key] = journal
        slot.in_flight[slot.actor.run.remote(attempt, journal)] = attempt

    def _collect(self) -> None:
        """Take every answer that is there; wait a moment for the first."""
        owners = {ref: slot for slot in self.crew.slots for ref in slot.awaited}
        if not owners:
            time.sleep(WAIT_S)
            return
        ray.wait(list(owners), num_returns=1, timeout=WAIT_S, fetch_local=False)
        answered, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0, fetch_local=False)
        for ref in answered:
            slot = owners[ref]
            if ref in slot.in_flight:
                self._receive(slot, ref)
            elif slot in self.crew.slots and not slot.ready:
                self.crew.answer(slot, ref)
                if slot.node:
                    self._journal.on(slot.node)  # it starts beside the model

    def _receive(self, slot: WorkerSlot, ref: Any) -> None:
        try:
            report = answer_of(slot, ref)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, DeviceError):
                return self._lose(slot, one_line(cause), Failure.DEVICE, died="its device failed")
            self._try_again(slot, self._taken(slot, ref), cause)
        except WorkerGoneError as gone:
            if gone.failure is Failure.OUT_OF_MEMORY:
                self._lose_for_memory(slot)
            else:
                self._lose(slot, str(gone), gone.failure)
        else:
            self._deaths = self._refusals = 0
            chunk = self._taken(slot, ref).chunk
            self._ledger.finish(chunk, report)
            self._metrics.finished(report)
            self._ledger.take_back(self.crew.note_finished(slot, chunk.chunk_id))

    def _taken(self, slot: WorkerSlot, ref: Any) -> Attempt:
        attempt = slot.in_flight.pop(ref)
        slot.alone = False
        return attempt

    def _try_again(self, slot: WorkerSlot, attempt: Attempt, error: Exception) -> None:
        """An attempt raised `error`; its worker lives."""
        if isinstance(error, JournalLostError):
            self._journal.replace(self._journals[attempt.key])
            self._ledger.put_back(attempt.chunk)
            return
        if isinstance(error, ConfigError):
            raise error  # of the plan or of the place to write to: the next chunk would meet it as well
        self._metrics.failed(Failure.STORAGE if isinstance(error, StorageError) else Failure.ERROR)
        why = f"{type(error).__name__}: {one_line(error)}"
        chunk_id = attempt.chunk.chunk_id
        if isinstance(error, SourceError):
            count = self._ledger.give_up_source(attempt, error.shard, one_line(error))
            waiting = f"chunk {chunk_id} and {count - 1} more wait for their source: {why}"
            self._progress.say(waiting, Event.SHARD_WAITS, chunk=chunk_id)
        elif isinstance(error, StorageError):
            self._refused(slot, attempt, error, why)
        else:
            entries = self._journal.read(slot.node, [attempt.key])
            entry = entries.get(attempt.key) if entries else None
            self._say_of(slot, attempt, self._ledger.blame(attempt, entry, why), why)

    def _refused(self, slot: WorkerSlot, attempt: Attempt, error: StorageError, why: str) -> None:
        """The store refused the worker, or failed it: the fault of the store, of the machine or of the chunk."""
        denied = isinstance(error, DeniedError)
        self._refusals += denied
        if self.crew.note_refused(slot, attempt, one_line(error)):
            verdict = Verdict.ELSEWHERE
            self._ledger.put_back(attempt.chunk)
        elif denied:
            verdict = self._ledger.refuse(attempt, one_line(error))
        else:
            verdict = self._ledger.blame(attempt, None, why)
        self._say_of(slot, attempt, verdict, one_line(error) if denied else why)
        if self._refusals >= REFUSALS_IN_A_ROW and self.crew.machines_fail_alike:
            last = f"the last one: {one_line(error)}"
            raise RunError(f"{self._refusals} refusals in a row with no chunk finished; {last}")
        if verdict is Verdict.GIVEN_UP and not denied:
            raise RunError(f"the store does not answer: {one_line(error)}") from error

    def _lose(self, slot: WorkerSlot, why: str, failure: Failure, *, died: str = "its worker died") -> None:
        """Dismiss a worker that is gone, and decide on the chunks that it held. One that had not begun goes back; one
        whose machine was lost is excused, and its journal is not asked: it was there."""
        attempts = self.crew.lose(slot)
        if failure is Failure.NODE_LOST:
            gone = f"a node is gone, {counted(len(attempts), 'chunk')} to be done again: {why}"
            self._progress.say(gone, Event.NODE_LOST, node=slot.node)
            judge = self._ledger.let_go if self.crew.note_lost(slot, attempts) else self._ledger.excuse
            self._metrics.failed(failure, self._judge(slot, attempts, None, "its node was lost", why, judge))
            return
        entries = self._journal.read(slot.node, [attempt.key for attempt in attempts])
        self._deaths += 1
        self._metrics.failed(failure, self._judge(slot, attempts, entries, died, why, self._ledger.blame))
        self._ledger.take_back(self.crew.note_death(slot, attempts, why))
        if self._deaths >= DEATHS_IN_A_ROW and self.crew.machines_fail_alike:
            raise RunError(f"{self._deaths} workers died in a row with no chunk finished; the last one: {why}")

    def _lose_for_memory(self, slot: WorkerSlot) -> None:
        """Ray killed the worker because its machine was short of memory, which any process on it may have used."""
        attempts = self.crew.lose(slot)
        entries = self._journal.read(slot.node, [attempt.key for attempt in attempts])
        where = self.crew.note_out_of_memory(slot, attempts)
        failed = self._judge(slot, attempts, entries, "its machine ran out of memory", where, self._ledger.spare)
        self._metrics.failed(Failure.OUT_OF_MEMORY, failed)

    def _judge(
        self,
        slot: WorkerSlot,
        attempts: list[Attempt],
        entries: Mapping[str, JournalEntry] | None,
        died: str,
        why: str,
        verdict_on: Callable[[Attempt, JournalEntry | None, str], Verdict],
    ) -> int:
        """Put back the attempts that had not begun and judge the others; returns how many these are."""
        failed = 0
        for attempt in attempts:
            if entries is not None and attempt.key not in entries:
                self._ledger.put_back(attempt.chunk)
                continue
            failed += 1
            verdict = verdict_on(attempt, entries[attempt.key] if entries else None, died)
            self._say_of(slot, attempt, verdict, f"{died}: {why}")
            if verdict is Verdict.NAMED:
                self._deaths = 0
                self.crew.note_named(attempt.chunk.chunk_id)
                if self._ledger.nothing_works:
                    raise RunError(f"image after image ends its worker, and nothing was finished; {died}: {why}")
        return failed

    def _say_of(self, slot: WorkerSlot, attempt: Attempt, verdict: Verdict, why: str) -> None:
        chunk = attempt.chunk.chunk_id
        self._progress.say(f"chunk {chunk} {verdict}: {why}", Event.CHUNK_FAILED, chunk=chunk, node=slot.node)

    def _watch(self) -> None:
        """Read which image each attempt is at, and replace workers that are at the same image for too long."""
        now = time.monotonic()
        if now < self._next_watch:
            return
        self._next_watch = now + WATCH_S
        self._journals = {key: self._journals[key] for key in self._keys()}
        self._entries = self._journal.look(self.crew.keys)
        limit = self._settings.image_timeout_s
        self._ledger.take_back(self.crew.failed_on_lost(), lost=True)
        self.crew.forget_trials(self._ledger.is_over)
        self.crew.replace_hung_starts()
        for slot in self.crew.busy:
            age = max((self._entries[key].age_s for key in slot.keys if key in self._entries), default=0.0)
            if age > limit:
                died = f"it hung for run.image_timeout_s={limit:g}"
                self._lose(slot, f"no image done for {age:.0f} s", Failure.HUNG, died=died)

    def _drain(self, stop: StopFlag) -> None:
        deadline = time.monotonic() + self._settings.grace_s
        left = f"{self._settings.grace_s:.0f} s for {counted(len(self._keys()), 'chunk')} in flight"
        self._progress.say(f"stopping: up to {left}", Event.STOPPING)
        self.crew.dismiss_idle()
        while self.crew.busy and time.monotonic() < deadline and stop.signals < 2:
            self._collect()

    def _show(self) -> None:
        ledger, slots, keys = self._ledger, self.crew.slots, self._keys()
        done_in_flight = sum(max(0, self._entries[key].images - 1) for key in keys if key in self._entries)
        ready = sum(slot.ready for slot in slots)
        standing = ledger.standing(in_flight=done_in_flight, workers_ready=ready, workers_wanted=len(slots))
        self._progress.show(standing)
        waiting, given_up = len(ledger.waiting), len(ledger.given_up)
        self._metrics.show(standing, waiting=waiting, in_flight=len(keys), given_up=given_up)

    def _keys(self) -> list[str]:
        return [key for slot in self.crew.slots for key in slot.keys]
