"""The workers of a run: as many as there is work and memory for, placed where workers do not fail.

Owns the actors. Knows which attempts each worker has; what becomes of these, the driver decides.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray as typed_ray
from ray.exceptions import RayTaskError

from pipeline.cluster.capacity import Capacity
from pipeline.cluster.machines import Machines
from pipeline.cluster.metrics import Failure
from pipeline.cluster.slots import WorkerGoneError, WorkerSlot, answer_of
from pipeline.errors import MaskmillError, RunError, StorageError
from pipeline.progress import Event, Say
from pipeline.records import Attempt
from pipeline.settings import RunSettings
from pipeline.texts import one_line

ray: Any = typed_ray  # its annotations are partial and partly wrong

CHUNKS_IN_FLIGHT = 2
"""Per worker: one that computes, and one that is read before it or written after it."""
PLACING_S = 60.0
"""Seconds after which a worker that waits for room is not counted on any more."""
LOADING_S = 600.0
"""Seconds in which a worker loads its model; more if run.image_timeout_s, which is about images, is more."""
RAN_OUT = "ran out of memory, and Ray ended a worker there"
MORE_MEMORY = "use a machine with more memory"


@dataclass(frozen=True)
class WorkerKind:
    """What the workers of a run are.

    actor_class  their Ray class, made for `num_cpus`, `num_gpus` and the chunks that one has at once
    spec         what each is told, once
    device       model.device: decides whether one takes a GPU or CPU slots
    """

    actor_class: Callable[..., Any]
    spec: object
    device: str


@dataclass(frozen=True, slots=True)
class Shortage:
    """A machine had no memory for a worker that held these chunks, or was still loading. It costs the crew a worker."""

    node: str
    chunk_ids: frozenset[str]


class Crew:
    """say  told about workers that fail and machines that are avoided

    raises  ConfigError if no node has room for a single worker, and none may still come
    """

    def __init__(self, workers: WorkerKind, settings: RunSettings, *, say: Say) -> None:
        self.slots: list[WorkerSlot] = []
        self._spec = ray.put(workers.spec)
        self._settings = settings
        self._say = say
        self.capacity = Capacity(settings, device=workers.device)
        self._machines = Machines()
        self._actor_class = workers.actor_class(
            num_cpus=self.capacity.cpus_each, num_gpus=self.capacity.gpus_each, chunks_at_once=CHUNKS_IN_FLIGHT
        )
        self._shortages: list[Shortage] = []
        self._refusals: dict[str, str] = {}
        """The last thing that a store said to workers of a machine."""
        self._worked_s = 0.0

    @property
    def busy(self) -> list[WorkerSlot]:
        return [slot for slot in self.slots if slot.in_flight]

    @property
    def keys(self) -> dict[str, list[str]]:
        """Of the attempts in flight, by machine."""
        keys: defaultdict[str, list[str]] = defaultdict(list)
        for slot in self.busy:
            keys[slot.node] += slot.keys
        return keys

    @property
    def avoided(self) -> tuple[str, ...]:
        """Sentences: which machines were avoided, and why."""
        return tuple(f"{self.capacity.name_of(node)}: {why}" for node, why in self._machines.avoided.items())

    @property
    def worked_s(self) -> float:
        """Seconds for which workers were ready, summed over all of them."""
        now = time.monotonic()
        return self._worked_s + sum(now - slot.since for slot in self.slots if slot.ready)

    def fit_to(self, work: int) -> None:
        """Ask for workers, or dismiss some, until there is one for each of `work` chunks, up to the limit.

        Those that still wait for resources are demand for the autoscaler.
        """
        wanted = min(self._limit(), work)
        for slot in [slot for slot in self.slots if slot.node in self._machines.barred and not slot.in_flight]:
            self.dismiss(slot)
        idle = [slot for slot in self.slots if not slot.in_flight]
        # Those that have not started yet go first.
        for slot in sorted(idle, key=lambda slot: slot.ready)[: max(0, len(self.slots) - wanted)]:
            self.dismiss(slot)
        while len(self.slots) < wanted:
            self._ask_for_one()

    def answer(self, slot: WorkerSlot, ref: Any) -> None:
        """Take the answer of a worker that was not ready: it was placed, or its model is loaded.

        raises  what the loader raises if it is one of ours (ConfigError for a wrong checkpoint);
                RunError if workers fail to start wherever they are placed
        """
        try:
            answer = answer_of(slot, ref)
        except RayTaskError as error:
            # The driver has read the checkpoint, so a store that refuses it here may be this machine's fault.
            if isinstance(error.cause, MaskmillError) and not isinstance(error.cause, StorageError):
                raise error.cause from error
            self._start_failed(slot, one_line(error))
        except WorkerGoneError as gone:
            if gone.failure is Failure.OUT_OF_MEMORY:
                self._start_ran_out_of_memory(slot)
            else:
                self._start_failed(slot, str(gone), on="" if gone.failure is Failure.NODE_LOST else slot.node)
        else:
            slot.since = time.monotonic()
            if slot.node:
                slot.ready = True
                self._machines.note_started(slot.node)
            else:
                slot.node = answer
                self._machines.note_placed()

    def replace_hung_starts(self) -> None:
        latest = time.monotonic() - max(LOADING_S, self._settings.image_timeout_s)
        for slot in [slot for slot in self.slots if slot.node and not slot.ready and slot.since < latest]:
            self._start_failed(slot, f"it was not ready {time.monotonic() - slot.since:.0f} s after it was placed")

    def lose(self, slot: WorkerSlot) -> list[Attempt]:
        """Dismiss a worker that died, hangs or cannot be reached; returns what it held."""
        attempts = list(slot.in_flight.values())
        slot.in_flight.clear()
        self.dismiss(slot)
        return attempts

    @property
    def idle_machines(self) -> set[str]:
        """Machines whose workers get no chunk now."""
        return self._machines.idle(self._at_hand())

    @property
    def machines_fail_alike(self) -> bool:
        """Whether what fails is not one machine's fault."""
        return self._machines.fail_alike(self._at_hand())

    def note_finished(self, slot: WorkerSlot, chunk_id: str) -> list[Attempt]:
        """Returns the attempts whose failure turns out to be the fault of another machine, which is avoided."""
        node = self._machines.note_finished(slot.node, chunk_id)
        if not node or not self._avoid(node, f"chunks fail there that other machines do: {self._refusals[node]}"):
            return []
        self._machines.barred.add(node)
        return self._machines.take_failed(node)

    def note_refused(self, slot: WorkerSlot, attempt: Attempt, why: str) -> bool:
        """A store refused or failed a worker. True if another machine is to try first whether it is the chunk's
        fault."""
        self._refusals[slot.node] = why
        return self._machines.note_refused(slot.node, attempt, self._at_hand())

    def note_death(self, slot: WorkerSlot, attempts: list[Attempt], why: str) -> list[Attempt]:
        """A worker died on a machine that is not lost. Returns as `note_finished` does."""
        if not self._machines.note_death(slot.node, attempts):
            return []
        avoided = self._avoid(slot.node, f"workers keep dying there: {why}")
        return self._machines.take_failed(slot.node) if avoided else []

    def note_lost(self, slot: WorkerSlot, attempts: list[Attempt]) -> bool:
        """A worker's machine is gone. True if too many go at once for its chunks to be suspected of it."""
        chunk_ids = [attempt.chunk.chunk_id for attempt in attempts]
        machines = len(self._at_hand())
        return self._machines.note_lost(slot.node, chunk_ids, now=time.monotonic(), machines=machines)

    def failed_on_lost(self) -> list[Attempt]:
        """Attempts that ended with their worker on a machine which was about to be lost, as is known now."""
        return self._machines.take_failed_on_lost(self.capacity.alive())

    def forget_trials(self, is_over: Callable[[str], bool]) -> None:
        """Chunks of which no machine will say any more whether it can do them."""
        self._machines.forget_trials(is_over)

    def note_out_of_memory(self, slot: WorkerSlot, attempts: list[Attempt]) -> str:
        """Ray killed it because its machine had no memory left: one worker fewer from now on, as long as there is one.

        Returns the machine's name, for messages.
        """
        name = self.capacity.name_of(slot.node) if slot.node else "a machine"
        then = f"there is but one worker: {MORE_MEMORY}"
        if self._limit() > 1:
            self._shortages.append(Shortage(slot.node, frozenset(attempt.chunk.chunk_id for attempt in attempts)))
            then = f"one worker fewer from now on ({len(self._shortages)} in all); run.max_workers sets how many"
        self._say(f"{name} {RAN_OUT}; {then}")
        return name

    def note_named(self, chunk_id: str) -> None:
        """One image of this chunk is left out from now on. Memory that was short wherever the chunk was is taken for
        that image's doing, and the workers that this cost are asked for again."""
        self._forget([shortage for shortage in self._shortages if chunk_id in shortage.chunk_ids])

    def dismiss(self, slot: WorkerSlot) -> None:
        # Dropping the handle is not enough: another reference keeps the actor, and its GPU, for ever.
        ray.kill(slot.actor)
        self.slots.remove(slot)
        if slot.ready:
            self._worked_s += time.monotonic() - slot.since

    def dismiss_idle(self) -> None:
        for slot in [slot for slot in self.slots if not slot.in_flight]:
            self.dismiss(slot)

    def dismiss_all(self) -> None:
        for slot in list(self.slots):
            self.dismiss(slot)

    def _limit(self) -> int:
        limit = self._settings.max_workers or self.capacity.worth_asking_for(self._machines.avoided)
        return max(1, limit - len(self._shortages))

    def _forget(self, explained: list[Shortage]) -> None:
        if explained:
            self._shortages = [shortage for shortage in self._shortages if shortage not in explained]
            self._say(f"what took the memory is known; workers that are asked for again: {len(explained)}")

    def _ask_for_one(self) -> None:
        avoided = ",".join(sorted(self._machines.avoided))
        where = {"label_selector": {"ray.io/node-id": f"!in({avoided})"}} if avoided else {}
        actor = self._actor_class.options(**where).remote(self._spec)
        self.slots.append(WorkerSlot(actor=actor, placing=actor.node.remote(), starting=actor.start.remote()))

    def _start_failed(self, slot: WorkerSlot, why: str, *, on: str | None = None) -> None:
        node = slot.node if on is None else on
        self.dismiss(slot)
        self._say(f"a worker did not start ({self.capacity.name_of(slot.node)}): {why}")
        if self._machines.note_failed_start(node) and not self._avoid(node, f"workers do not start: {why}"):
            raise RunError(f"worker after worker does not start; the last one said: {why}")

    def _start_ran_out_of_memory(self, slot: WorkerSlot) -> None:
        """Other workers may have taken the memory, unless this one is the only one."""
        if self._limit() == 1:
            return self._start_failed(slot, f"its machine {RAN_OUT}; {MORE_MEMORY}")
        self.dismiss(slot)
        self.note_out_of_memory(slot, [])
        if self._machines.note_failed_start(slot.node):
            self._avoid(slot.node, "there is no memory for workers to start")

    def _avoid(self, node: str, why: str) -> bool:
        """Place no worker there any more; False if there would be no room left elsewhere."""
        others = {*self._machines.avoided, node}
        if not node or not self.capacity.workers_that_fit(without=others):
            return False
        if node not in self._machines.avoided:
            self._machines.avoided[node] = why
            name = self.capacity.name_of(node)
            self._say(f"{name} is avoided from now on: {why}", Event.MACHINE_AVOIDED, node=node)
            self._forget([shortage for shortage in self._shortages if shortage.node == node])
            for slot in list(self._unplaced()):
                self.dismiss(slot)  # it may be placed there yet
        return True

    def _at_hand(self) -> set[str]:
        """Machines that have a worker; "" among them if another one may have one soon."""
        nodes = {slot.node for slot in self.slots if slot.node}
        latest = time.monotonic() - PLACING_S
        if any(slot.since > latest for slot in self._unplaced()):
            nodes |= {""} if self.capacity.workers_that_fit(without={*nodes, *self._machines.avoided}) else set()
        return nodes - self._machines.barred

    def _unplaced(self) -> Iterator[WorkerSlot]:
        return (slot for slot in self.slots if not slot.node)
