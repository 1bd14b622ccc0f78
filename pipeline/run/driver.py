"""The only loop: places chunks on workers, collects reports, replaces the dead and the hung.

Owns the actors. Does not read images, write parts or decide what a chunk is, or who is to blame (ledger.py); what is
committed is known from listing the store alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import ray as typed_ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from pipeline.errors import MaskmillError, RunError, StorageError
from pipeline.run.chunk import Errand
from pipeline.run.journal import JournalKeeper, JournalLostError
from pipeline.run.ledger import Entry, Ledger, Verdict
from pipeline.run.lookout import Lookout
from pipeline.run.metrics import Failure, RunMetrics
from pipeline.run.progress import Progress, Standing
from pipeline.run.ray_session import one_line
from pipeline.run.room import Room, is_alive
from pipeline.run.signals import StopFlag
from pipeline.run.worker import WorkerSpec, worker_actor
from pipeline.settings import RunSettings

ray: Any = typed_ray  # its annotations are partial and partly wrong

CHUNKS_IN_FLIGHT = 2
"""Per worker: one at work and one that is there when it ends."""
START_ATTEMPTS = 3
"""Workers that may fail to start in a row before the job stops with their error."""
DEATHS_IN_A_ROW = 12
"""Workers that may die without a single chunk finished in between."""
WAIT_S = 0.5
WATCH_S = 2.0
"""Seconds between two readings of the journal."""


class Ending(StrEnum):
    """How the loop ended."""

    DONE = "done"
    """Nothing is waiting: every chunk is committed or given up."""
    STOPPED = "stopped"
    """A signal came; what is left can be resumed."""


@dataclass(eq=False)
class Seat:
    """One worker as the driver sees it."""

    actor: Any
    starting: Any
    node: str = ""
    """The id of its machine; empty until it has started."""
    in_flight: dict[Any, Errand] = field(default_factory=dict[Any, Errand])
    alone: bool = False
    """It works on a suspect chunk and gets no second one."""

    @property
    def ready(self) -> bool:
        return bool(self.node)


class Driver:
    """One pass over what is waiting in the ledger.

    look_around  ids of the chunks whose part is in the store now
    device       model.device: decides whether a worker takes a GPU or CPU slots
    """

    def __init__(
        self,
        ledger: Ledger,
        spec: WorkerSpec,
        settings: RunSettings,
        *,
        device: str,
        look_around: Callable[[], set[str]],
        progress: Progress,
    ) -> None:
        self._ledger = ledger
        self._spec = ray.put(spec)
        self._settings = settings
        self._lookout = Lookout(look_around)
        self._progress = progress
        self._metrics = RunMetrics(spec.out)
        self._room = Room(settings, device=device)
        self._actor_class = worker_actor(num_cpus=self._room.cpus_each, num_gpus=self._room.gpus_each)
        self._seats: list[Seat] = []
        self._journal = JournalKeeper()
        self._entries: Mapping[str, Entry] = {}
        """Of the chunks in flight, as last read."""
        self._next_watch = 0.0
        self._limit = 1
        self._failed_starts = 0
        self._deaths = 0

    def run(self, stop: StopFlag) -> Ending:
        """Until nothing is waiting, or `stop` is set.

        raises  what a worker's loader raises if it is one of ours (ConfigError for a wrong checkpoint);
                RunError if workers cannot start, or keep dying, or the store is gone
        """
        try:
            while not stop.signals:
                self._look()
                if not self._ledger.waiting and not self._busy():
                    return Ending.DONE
                self._staff()
                self._dispatch()
                self._collect(WAIT_S)
                self._watch()
                self._show()
            self._drain(stop)
            return Ending.STOPPED
        finally:
            for seat in list(self._seats):
                self._dismiss(seat)
            self._journal.close()

    def _busy(self) -> list[Seat]:
        return [seat for seat in self._seats if seat.in_flight]

    def _look(self) -> None:
        self._ledger.note_committed(self._lookout.news())
        self._limit = self._settings.max_workers or max(1, self._room.slots())

    def _staff(self) -> None:
        """As many workers as there is work for. Ones that still wait for resources are the autoscaler's demand."""
        busy = len(self._busy())
        wanted = min(self._limit, busy + len(self._ledger.waiting))
        idle = [seat for seat in self._seats if not seat.in_flight]
        # Those that have not started yet go first.
        for seat in sorted(idle, key=lambda seat: seat.ready)[: max(0, len(self._seats) - wanted)]:
            self._dismiss(seat)
        while len(self._seats) < wanted:
            actor = self._actor_class.remote(self._spec)
            self._seats.append(Seat(actor=actor, starting=actor.start.remote()))

    def _dispatch(self) -> None:
        for depth in range(CHUNKS_IN_FLIGHT):
            for seat in self._seats:
                if not self._ledger.waiting or (depth and not self._may_queue_behind()):
                    return
                if seat.ready and len(seat.in_flight) == depth and not seat.alone:
                    self._send(seat)

    def _may_queue_behind(self) -> bool:
        """A second chunk only while there is enough for all (the last ones go to whoever is free first), and never a
        suspect one: its death would cost the neighbour an attempt."""
        waiting = self._ledger.waiting
        return len(waiting) > len(self._seats) and not self._ledger.is_suspect(waiting[0])

    def _send(self, seat: Seat) -> None:
        errand = self._ledger.take()
        seat.alone = errand.careful
        seat.in_flight[seat.actor.run.remote(errand, self._journal.actor)] = errand

    def _collect(self, timeout: float) -> None:
        owners = {ref: seat for seat in self._seats for ref in seat.in_flight}
        owners |= {seat.starting: seat for seat in self._seats if not seat.ready}
        if not owners:
            time.sleep(timeout)
            return
        ready, _ = ray.wait(list(owners), num_returns=1, timeout=timeout, fetch_local=False)
        for ref in ready:
            seat = owners[ref]
            if ref in seat.in_flight:
                self._receive(seat, ref)
            else:
                self._welcome(seat, ref)

    def _welcome(self, seat: Seat, ref: Any) -> None:
        try:
            node = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, MaskmillError):
                raise error.cause from error
            self._start_failed(seat, error)
        except RayError as error:
            self._start_failed(seat, error)
        else:
            seat.node = node
            self._failed_starts = 0

    def _start_failed(self, seat: Seat, error: RayError) -> None:
        self._dismiss(seat)
        self._failed_starts += 1
        why = one_line(error)
        self._progress.say(f"a worker did not start: {why}")
        if self._failed_starts >= START_ATTEMPTS:
            raise RunError(f"{self._failed_starts} workers in a row did not start; the last one said: {why}") from error

    def _receive(self, seat: Seat, ref: Any) -> None:
        try:
            report = ray.get(ref)
        except RayTaskError as error:
            errand = seat.in_flight.pop(ref)
            seat.alone = False
            self._try_again(errand, error.cause if isinstance(error.cause, Exception) else error)
        # Neither of Ray's out-of-memory and actor errors is a kind of the other; RayError comes last.
        except OutOfMemoryError as error:
            self._lose(seat, f"the machine ran out of memory: {one_line(error)}", failure=Failure.OUT_OF_MEMORY)
        except RayError as error:
            self._lose(seat, one_line(error))
        else:
            self._deaths = 0
            errand = seat.in_flight.pop(ref)
            seat.alone = False
            self._ledger.finish(errand.chunk, report)
            self._metrics.finished(report)

    def _try_again(self, errand: Errand, error: Exception) -> None:
        """The worker lives and said what is wrong with this chunk."""
        if isinstance(error, JournalLostError):
            self._journal.renew()
            self._ledger.put_back(errand.chunk)
            return
        self._metrics.failed(Failure.STORAGE if isinstance(error, StorageError) else Failure.ERROR)
        why = f"{type(error).__name__}: {one_line(error)}"
        entries = None if isinstance(error, StorageError) else self._journal.read([errand.key])
        entry = entries.get(errand.key) if entries else None
        verdict = self._ledger.blame(errand, entry, why)
        self._progress.say(f"chunk {errand.chunk.chunk_id} {verdict}: {why}")
        if verdict is Verdict.GIVEN_UP and isinstance(error, StorageError):
            raise RunError(f"the store does not answer: {one_line(error)}") from error

    def _lose(
        self, seat: Seat, why: str, *, died: str = "its worker died", failure: Failure = Failure.WORKER_DIED
    ) -> None:
        """The worker is gone, and what it held goes back. A lost machine is nobody's fault, nor is a chunk that had
        not begun."""
        self._dismiss(seat)
        errands = list(seat.in_flight.values())
        seat.in_flight.clear()
        if not is_alive(seat.node):
            for errand in errands:
                self._metrics.failed(Failure.NODE_LOST)
                self._ledger.put_back(errand.chunk)
            self._progress.say(f"a node is gone, {len(errands)} chunks go back: {why}")
            return
        entries = self._journal.read([errand.key for errand in errands])
        self._deaths += 1
        for errand in errands:
            if entries is not None and errand.key not in entries:
                self._ledger.put_back(errand.chunk)
                continue
            self._metrics.failed(failure)
            verdict = self._ledger.blame(errand, entries[errand.key] if entries else None, died)
            self._progress.say(f"chunk {errand.chunk.chunk_id} {verdict}: {died}: {why}")
            if verdict is Verdict.NAMED:
                self._deaths = 0
        if self._deaths >= DEATHS_IN_A_ROW:
            raise RunError(f"{self._deaths} workers died in a row with no chunk finished; the last one: {why}")

    def _watch(self) -> None:
        """Read what the workers are at; one that is at the same image for too long is replaced."""
        now = time.monotonic()
        if now < self._next_watch:
            return
        self._next_watch = now + WATCH_S
        self._entries = self._journal.read_only(self._keys())
        limit = self._settings.image_timeout_s
        for seat in self._busy():
            ages = [self._entries[e.key].age_s for e in seat.in_flight.values() if e.key in self._entries]
            if ages and min(ages) > limit:
                self._lose(
                    seat,
                    f"no image done for {min(ages):.0f} s",
                    died=f"it hung for run.image_timeout_s={limit:g}",
                    failure=Failure.HUNG,
                )

    def _dismiss(self, seat: Seat) -> None:
        # Dropping the handle is not enough: another reference keeps the actor, and its GPU, for ever.
        ray.kill(seat.actor)
        self._seats.remove(seat)

    def _drain(self, stop: StopFlag) -> None:
        deadline = time.monotonic() + self._settings.grace_s
        in_flight = sum(len(seat.in_flight) for seat in self._seats)
        self._progress.say(f"stopping: up to {self._settings.grace_s:.0f} s for {in_flight} chunks in flight")
        for seat in [seat for seat in self._seats if not seat.in_flight]:
            self._dismiss(seat)
        while self._busy() and time.monotonic() < deadline and stop.signals < 2:
            self._collect(WAIT_S)

    def _show(self) -> None:
        ledger = self._ledger
        standing = Standing(
            images_done=ledger.images_committed + self._images_in_flight(),
            images_total=ledger.plan.image_count,
            masks=sum(report.masks for report in ledger.reports),
            workers_ready=sum(seat.ready for seat in self._seats),
            workers_wanted=len(self._seats),
        )
        self._progress.show(standing)
        self._metrics.show(
            standing, waiting=len(ledger.waiting), in_flight=len(self._keys()), given_up=len(ledger.given_up)
        )

    def _images_in_flight(self) -> int:
        """Done, but not committed yet."""
        return sum(max(0, self._entries[key].images - 1) for key in self._keys() if key in self._entries)

    def _keys(self) -> list[str]:
        return [errand.key for seat in self._seats for errand in seat.in_flight.values()]
