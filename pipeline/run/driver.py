"""The only loop: places chunks on workers, collects reports, replaces the dead.

Owns the Ray session and the actors. Does not read images, write parts or decide what a
chunk is; what is committed is known from listing the store alone.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import ray as typed_ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from pipeline.errors import ConfigError, MaskmillError, RunError, StorageError
from pipeline.records import Chunk
from pipeline.run.ledger import Ledger
from pipeline.run.lookout import Lookout
from pipeline.run.progress import Progress, Standing
from pipeline.run.signals import StopFlag
from pipeline.run.worker import WorkerSpec, worker_actor
from pipeline.settings import RunSettings

ray: Any = typed_ray  # its annotations are partial and partly wrong

OBJECT_STORE_BYTES = 128 * 2**20
"""Only descriptors and reports travel; Ray's default of 30 % of the memory is needed for decoded images."""
CHUNKS_IN_FLIGHT = 2
"""Per worker: one at work and one that is there when it ends."""
START_ATTEMPTS = 3
"""Workers that may fail to start in a row before the job stops with their error."""
DEATHS_IN_A_ROW = 12
"""Workers that may die without a single chunk finished in between."""
WAIT_S = 0.5


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
    ready: bool = False
    """It has started."""
    in_flight: dict[Any, Chunk] = field(default_factory=dict[Any, Chunk])
    alone: bool = False
    """It works on a suspect chunk and gets no second one."""


@contextmanager
def ray_session(address: str) -> Generator[None]:
    """Ray for this process, or the session that the caller has already. SIGTERM's handler stays the caller's.

    raises  ConfigError if there is no cluster at `address`
    """
    if ray.is_initialized():
        yield
        return
    try:
        with _sigterm_kept():
            _connect(address)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at run.address={address} ({one_line(error)}); start one with "
            "`ray start --head`, or use run=local"
        ) from error
    except SystemExit as error:
        # Ray's own SIGTERM handler is in force while it connects, and exits.
        raise KeyboardInterrupt from error
    try:
        yield
    finally:
        with _sigterm_kept():
            ray.shutdown()


@contextmanager
def _sigterm_kept() -> Generator[None]:
    """ray.init installs a handler that exits with 143, and ray.shutdown the one that kills the process."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _connect(address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        return
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        # Ray itself tries for more than two minutes.
        socket.create_connection((host, int(port)), timeout=10).close()
    ray.init(address=address, **quiet)


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
        self._uses_gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
        self._refuse_no_room()
        self._actor_class = worker_actor(
            num_cpus=1 if self._uses_gpu else settings.threads_per_worker, num_gpus=1 if self._uses_gpu else 0
        )
        self._seats: list[Seat] = []
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
                self._show()
            self._drain(stop)
            return Ending.STOPPED
        finally:
            for seat in list(self._seats):
                self._dismiss(seat)

    def _busy(self) -> list[Seat]:
        return [seat for seat in self._seats if seat.in_flight]

    def _look(self) -> None:
        self._ledger.note_committed(self._lookout.news())
        self._limit = self._settings.max_workers or max(1, self._slots())

    def _slots(self) -> int:
        """Workers that the cluster has room for now; it may grow."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if self._uses_gpu:
            return sum(int(node.get("GPU", 0)) for node in nodes)
        return sum(int(node.get("CPU", 0) // self._settings.threads_per_worker) for node in nodes)

    def _refuse_no_room(self) -> None:
        """A worker that no node has room for waits for ever; that is right only where nodes may still come."""
        settings = self._settings
        if self._slots() or (settings.address != "local" and settings.max_workers is not None):
            return
        why = (
            "model.device=cuda, but Ray sees no GPU; use model.device=auto or cpu"
            if self._uses_gpu
            else f"run.threads_per_worker={settings.threads_per_worker}, but no node has that many CPUs; lower it"
        )
        raise ConfigError(f"{why}, or, on a cluster that grows on demand, set run.max_workers")

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
        chunk = self._ledger.take()
        seat.alone = self._ledger.is_suspect(chunk)
        seat.in_flight[seat.actor.run.remote(chunk)] = chunk

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
            ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, MaskmillError):
                raise error.cause from error
            self._start_failed(seat, error)
        except RayError as error:
            self._start_failed(seat, error)
        else:
            seat.ready = True
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
            chunk = seat.in_flight.pop(ref)
            seat.alone = False
            self._try_again(chunk, error.cause if isinstance(error.cause, Exception) else error)
        # Neither of Ray's out-of-memory and actor errors is a kind of the other; RayError comes last.
        except OutOfMemoryError as error:
            self._lose(seat, f"the machine ran out of memory: {one_line(error)}")
        except RayError as error:
            self._lose(seat, one_line(error))
        else:
            self._deaths = 0
            chunk = seat.in_flight.pop(ref)
            seat.alone = False
            self._ledger.finish(chunk, report)

    def _try_again(self, chunk: Chunk, error: Exception) -> None:
        """The worker lives and said what is wrong with this chunk."""
        why = f"{type(error).__name__}: {one_line(error)}"
        again = self._ledger.fail(chunk, why)
        self._progress.say(f"chunk {chunk.chunk_id} {'is tried again' if again else 'is given up'}: {why}")
        if not again and isinstance(error, StorageError):
            raise RunError(f"the store does not answer: {one_line(error)}") from error

    def _lose(self, seat: Seat, why: str) -> None:
        """The worker is gone, and what it held goes back."""
        self._dismiss(seat)
        for chunk in seat.in_flight.values():
            again = self._ledger.fail(chunk, f"its worker died: {why}")
            after = "is tried again" if again else "is given up"
            self._progress.say(f"chunk {chunk.chunk_id} {after}: its worker died: {why}")
        seat.in_flight.clear()
        self._deaths += 1
        if self._deaths >= DEATHS_IN_A_ROW:
            raise RunError(f"{self._deaths} workers died in a row with no chunk finished; the last one: {why}")

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
        self._progress.show(
            Standing(
                images_done=ledger.images_committed,
                images_total=ledger.plan.image_count,
                masks=sum(report.masks for report in ledger.reports),
                workers_ready=sum(seat.ready for seat in self._seats),
                workers_wanted=len(self._seats),
            )
        )


def one_line(error: BaseException) -> str:
    """The last line of what an error says: the first ones of a remote error are a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]
