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

from pipeline.cluster.crew import CHUNKS_IN_FLIGHT, Crew, WorkerGoneError, WorkerKind, WorkerSlot, answer_of
from pipeline.cluster.journal import JournalKeeper, JournalLostError
from pipeline.cluster.ledger import Ledger, Verdict
from pipeline.cluster.metrics import Failure, RunMetrics
from pipeline.cluster.part_poller import PartPoller
from pipeline.cluster.ray_session import one_line
from pipeline.cluster.signals import StopFlag
from pipeline.errors import ConfigError, DeniedError, DeviceError, RunError, SourceError, StorageError
from pipeline.progress import Event, Progress, Standing
from pipeline.records import Attempt, Ending, JournalEntry
from pipeline.settings import RunSettings

ray: Any = typed_ray  # its annotations are partial and partly wrong

DEATHS_IN_A_ROW = 12
"""Workers that may die without a single chunk finished in between."""
REFUSALS_IN_A_ROW = 12
"""Attempts that a store may refuse without a single chunk finished in between."""
WAIT_S = 0.5
WATCH_S = 2.0
"""Seconds between two readings of the journal."""


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
        self._deaths = 0
        self._refusals = 0

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
        for depth in range(CHUNKS_IN_FLIGHT):
            for slot in self.crew.slots:
                if not self._ledger.waiting or (depth and not self._may_queue_behind()):
                    return
                if slot.ready and len(slot.in_flight) == depth and not slot.alone:
                    self._send(slot)

    def _may_queue_behind(self) -> bool:
        """Whether the next chunk may be a worker's second. Not if few are left: these go to whoever is free first.
        Not if it is suspect: if it ended the worker, the first chunk would lose an attempt."""
        waiting = self._ledger.waiting
        return len(waiting) > len(self.crew.slots) and not self._ledger.is_suspect(waiting[0])

    def _send(self, slot: WorkerSlot) -> None:
        attempt = self._ledger.take()
        slot.alone = attempt.careful
        self._journals[attempt.key] = self._journal.actor
        slot.in_flight[slot.actor.run.remote(attempt, self._journal.actor)] = attempt

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

    def _receive(self, slot: WorkerSlot, ref: Any) -> None:
        try:
            report = answer_of(slot, ref)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, DeviceError):
                return self._lose(slot, one_line(cause), Failure.DEVICE, died="its device failed")
            self._try_again(self._taken(slot, ref), cause)
        except WorkerGoneError as gone:
            if gone.failure is Failure.OUT_OF_MEMORY:
                self._lose_for_memory(slot)
            else:
                self._lose(slot, str(gone), gone.failure)
        else:
            self._deaths = self._refusals = 0
            self.crew.note_finished(slot)
            self._ledger.finish(self._taken(slot, ref).chunk, report)
            self._metrics.finished(report)

    def _taken(self, slot: WorkerSlot, ref: Any) -> Attempt:
        attempt = slot.in_flight.pop(ref)
        slot.alone = False
        return attempt

    def _try_again(self, attempt: Attempt, error: Exception) -> None:
        """An attempt raised `error`; its worker lives."""
        if isinstance(error, JournalLostError):
            self._journal.replace(self._journals[attempt.key])
            self._ledger.put_back(attempt.chunk)
            return
        if isinstance(error, ConfigError):
            raise error  # of the plan or of the place to write to: the next chunk would meet it as well
        self._metrics.failed(Failure.STORAGE if isinstance(error, StorageError) else Failure.ERROR)
        why = f"{type(error).__name__}: {one_line(error)}"
        if isinstance(error, SourceError):
            count = self._ledger.give_up_source(attempt, error.shard, one_line(error))
            return self._progress.say(
                f"chunk {attempt.chunk.chunk_id} and {count - 1} more wait for their source: {why}"
            )
        if isinstance(error, DeniedError):
            return self._refused(attempt, error)
        entries = None if isinstance(error, StorageError) else self._journal.read([attempt.key])
        entry = entries.get(attempt.key) if entries else None
        verdict = self._ledger.blame(attempt, entry, why)
        self._progress.say(f"chunk {attempt.chunk.chunk_id} {verdict}: {why}")
        if verdict is Verdict.GIVEN_UP and isinstance(error, StorageError):
            raise RunError(f"the store does not answer: {one_line(error)}") from error

    def _refused(self, attempt: Attempt, error: DeniedError) -> None:
        self._refusals += 1
        verdict = self._ledger.refuse(attempt, one_line(error))
        self._progress.say(f"chunk {attempt.chunk.chunk_id} {verdict}: {one_line(error)}")
        if self._refusals >= REFUSALS_IN_A_ROW:
            raise RunError(
                f"{self._refusals} refusals in a row with no chunk finished; the last one: {one_line(error)}"
            )

    def _lose(self, slot: WorkerSlot, why: str, failure: Failure, *, died: str = "its worker died") -> None:
        """Dismiss a worker that is gone, and decide on the chunks that it held. One that had not begun goes back; one
        whose machine was lost is excused."""
        attempts = self.crew.lose(slot)
        entries = self._journal.read([attempt.key for attempt in attempts])
        if failure is Failure.NODE_LOST:
            self._progress.say(f"a node is gone, {len(attempts)} chunks go back: {why}")
            failed = self._judge(attempts, entries, "its node was lost", why, self._ledger.excuse)
            self._metrics.failed(failure, failed)
            return
        self._deaths += 1
        self.crew.note_death(slot, attempts, why)
        self._metrics.failed(failure, self._judge(attempts, entries, died, why, self._ledger.blame))
        if self._deaths >= DEATHS_IN_A_ROW:
            raise RunError(f"{self._deaths} workers died in a row with no chunk finished; the last one: {why}")

    def _lose_for_memory(self, slot: WorkerSlot) -> None:
        """Ray killed the worker because its machine was short of memory, which any process on it may have used."""
        attempts = self.crew.lose(slot)
        entries = self._journal.read([attempt.key for attempt in attempts])
        where = self.crew.note_out_of_memory(slot, attempts)
        failed = self._judge(attempts, entries, "its machine ran out of memory", where, self._ledger.spare)
        self._metrics.failed(Failure.OUT_OF_MEMORY, failed)

    def _judge(
        self,
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
            self._progress.say(f"chunk {attempt.chunk.chunk_id} {verdict}: {died}: {why}")
            if verdict is Verdict.NAMED:
                self._deaths = 0
                self.crew.note_named(attempt.chunk.chunk_id)
                if self._ledger.nothing_works:
                    raise RunError(f"image after image ends its worker, and nothing was finished; {died}: {why}")
        return failed

    def _watch(self) -> None:
        """Read which image each attempt is at, and replace workers that are at the same image for too long."""
        now = time.monotonic()
        if now < self._next_watch:
            return
        self._next_watch = now + WATCH_S
        self._journals = {key: self._journals[key] for key in self._keys()}
        self._entries = self._journal.read_only(self._keys())
        limit = self._settings.image_timeout_s
        self.crew.replace_hung_starts()
        for slot in self.crew.busy:
            age = max(
                (self._entries[e.key].age_s for e in slot.in_flight.values() if e.key in self._entries), default=0
            )
            if age > limit:
                died = f"it hung for run.image_timeout_s={limit:g}"
                self._lose(slot, f"no image done for {age:.0f} s", Failure.HUNG, died=died)

    def _drain(self, stop: StopFlag) -> None:
        deadline = time.monotonic() + self._settings.grace_s
        in_flight = len(self._keys())
        self._progress.say(
            f"stopping: up to {self._settings.grace_s:.0f} s for {in_flight} chunks in flight", Event.STOPPING
        )
        for slot in [slot for slot in self.crew.slots if not slot.in_flight]:
            self.crew.dismiss(slot)
        while self.crew.busy and time.monotonic() < deadline and stop.signals < 2:
            self._collect()

    def _show(self) -> None:
        ledger, slots = self._ledger, self.crew.slots
        standing = Standing(
            images_done=ledger.images_committed + self._images_in_flight(),
            images_total=ledger.plan.image_count,
            masks=ledger.masks,
            workers_ready=sum(slot.ready for slot in slots),
            workers_wanted=len(slots),
        )
        self._progress.show(standing)
        self._metrics.show(
            standing, waiting=len(ledger.waiting), in_flight=len(self._keys()), given_up=len(ledger.given_up)
        )

    def _images_in_flight(self) -> int:
        """Images that are done, in chunks that are not committed yet."""
        return sum(max(0, self._entries[key].images - 1) for key in self._keys() if key in self._entries)

    def _keys(self) -> list[str]:
        return [attempt.key for slot in self.crew.slots for attempt in slot.in_flight.values()]
