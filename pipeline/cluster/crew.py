"""The workers of a run: as many as are wanted, placed where they do not fail, and told apart from the dead.

Owns the actors. Does not know what they work on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray as typed_ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from pipeline.cluster.capacity import Room, machine_is_lost
from pipeline.cluster.machines import Machines
from pipeline.cluster.ray_session import one_line
from pipeline.errors import MaskmillError, RunError
from pipeline.records import Errand
from pipeline.settings import RunSettings

ray: Any = typed_ray  # its annotations are partial and partly wrong

CHUNKS_IN_FLIGHT = 2
"""Per worker: one that computes, and one that is read before it or written after it."""
LOADING_S = 600.0
"""Seconds in which a worker loads its model; more if run.image_timeout_s, which is about images, is more."""
NO_MEMORY = "ran out of memory, and Ray ended a worker there"
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


@dataclass(eq=False)
class Seat:
    """One worker as the driver sees it: asked for, then placed on a node, then ready."""

    actor: Any
    placing: Any
    """Answered with the id of the node, once there was room on one."""
    starting: Any
    """Answered when the model is loaded."""
    node: str = ""
    ready: bool = False
    since: float = 0.0
    """When it came to be what it is: placed, or ready."""
    in_flight: dict[Any, Errand] = field(default_factory=dict[Any, Errand])
    alone: bool = False
    """It works on a suspect chunk and gets no second one."""

    @property
    def awaited(self) -> list[Any]:
        """The answers that it owes."""
        if self.ready:
            return list(self.in_flight)
        return [self.starting if self.node else self.placing]


@dataclass(frozen=True, slots=True)
class Shortage:
    """A machine had no memory for a worker that held these chunks, or was still loading: one fewer is asked for."""

    node: str
    chunk_ids: frozenset[str]


class Crew:
    """say  told about workers that fail and machines that are avoided

    raises  ConfigError if no node has room for a single worker, and none may still come
    """

    def __init__(self, workers: WorkerKind, settings: RunSettings, *, say: Callable[[str], None]) -> None:
        self.seats: list[Seat] = []
        self._spec = ray.put(workers.spec)
        self._settings = settings
        self._say = say
        self._room = Room(settings, device=workers.device)
        self._machines = Machines()
        self._actor_class = workers.actor_class(
            num_cpus=self._room.cpus_each, num_gpus=self._room.gpus_each, chunks_at_once=CHUNKS_IN_FLIGHT
        )
        self._shortages: list[Shortage] = []
        self._worked_s = 0.0

    @property
    def busy(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.in_flight]

    @property
    def avoided(self) -> tuple[str, ...]:
        """Sentences: which machines were avoided, and why."""
        return tuple(f"{self._room.name_of(node)}: {why}" for node, why in self._machines.avoided.items())

    @property
    def worked_s(self) -> float:
        """Seconds for which workers were ready, summed over all of them."""
        now = time.monotonic()
        return self._worked_s + sum(now - seat.since for seat in self.seats if seat.ready)

    def fit_to(self, work: int) -> None:
        """Ask for, or dismiss, until there is a worker for each of `work` chunks, up to the limit.

        Those that still wait for resources are the autoscaler's demand.
        """
        wanted = min(self._limit(), work)
        idle = [seat for seat in self.seats if not seat.in_flight]
        # Those that have not started yet go first.
        for seat in sorted(idle, key=lambda seat: seat.ready)[: max(0, len(self.seats) - wanted)]:
            self.dismiss(seat)
        while len(self.seats) < wanted:
            self._ask_for_one()

    def answer(self, seat: Seat, ref: Any) -> None:
        """One that was not ready has answered.

        raises  what the loader raises if it is one of ours (ConfigError for a wrong checkpoint);
                RunError if workers fail to start wherever they are placed
        """
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, MaskmillError):
                raise error.cause from error
            self._start_failed(seat, one_line(error))
        # Neither of Ray's out-of-memory and actor errors is a kind of the other; RayError comes last.
        except OutOfMemoryError:
            self._start_ran_out_of_memory(seat)
        except RayError as error:
            lost = machine_is_lost(error, seat.node)
            self._start_failed(seat, one_line(error), on="" if lost else seat.node)
        else:
            seat.since = time.monotonic()
            if seat.node:
                seat.ready = True
                self._machines.note_started(seat.node)
            else:
                seat.node = answer
                self._machines.note_placed()

    def replace_hung_starts(self) -> None:
        latest = time.monotonic() - max(LOADING_S, self._settings.image_timeout_s)
        for seat in [seat for seat in self.seats if seat.node and not seat.ready and seat.since < latest]:
            self._start_failed(seat, f"it was not ready {time.monotonic() - seat.since:.0f} s after it was placed")

    def lose(self, seat: Seat) -> list[Errand]:
        """Dismiss one that died, or is as good as dead; returns what it held."""
        errands = list(seat.in_flight.values())
        seat.in_flight.clear()
        self.dismiss(seat)
        return errands

    def note_finished(self, seat: Seat) -> None:
        self._machines.note_finished(seat.node)

    def note_death(self, seat: Seat, errands: list[Errand], why: str) -> None:
        """It died on a machine that lives on."""
        if self._machines.note_death(seat.node, [errand.chunk.chunk_id for errand in errands]):
            self._avoid(seat.node, f"workers keep dying there: {why}")

    def note_out_of_memory(self, seat: Seat, errands: list[Errand]) -> str:
        """Ray killed it because its machine had no memory left: one worker fewer from now on, as long as there is one.

        Returns where that was, for a person.
        """
        name = self._room.name_of(seat.node) if seat.node else "a machine"
        then = f"there is but one worker: {MORE_MEMORY}"
        if self._limit() > 1:
            self._shortages.append(Shortage(seat.node, frozenset(errand.chunk.chunk_id for errand in errands)))
            then = f"one worker fewer from now on ({len(self._shortages)} in all); run.max_workers sets how many"
        self._say(f"{name} {NO_MEMORY}; {then}")
        return name

    def note_named(self, chunk_id: str) -> None:
        """One image of this chunk is left out from now on. If memory was short wherever the chunk was, then for that
        image, and not because there were too many workers."""
        self._forget([shortage for shortage in self._shortages if chunk_id in shortage.chunk_ids])

    def dismiss(self, seat: Seat) -> None:
        # Dropping the handle is not enough: another reference keeps the actor, and its GPU, for ever.
        ray.kill(seat.actor)
        self.seats.remove(seat)
        if seat.ready:
            self._worked_s += time.monotonic() - seat.since

    def dismiss_all(self) -> None:
        for seat in list(self.seats):
            self.dismiss(seat)

    def _limit(self) -> int:
        limit = self._settings.max_workers or self._room.worth_asking_for(self._machines.avoided)
        return max(1, limit - len(self._shortages))

    def _forget(self, explained: list[Shortage]) -> None:
        if explained:
            self._shortages = [shortage for shortage in self._shortages if shortage not in explained]
            self._say(f"what took the memory is known; workers that are asked for again: {len(explained)}")

    def _ask_for_one(self) -> None:
        avoided = ",".join(sorted(self._machines.avoided))
        where = {"label_selector": {"ray.io/node-id": f"!in({avoided})"}} if avoided else {}
        actor = self._actor_class.options(**where).remote(self._spec)
        self.seats.append(Seat(actor=actor, placing=actor.node.remote(), starting=actor.start.remote()))

    def _start_failed(self, seat: Seat, why: str, *, on: str | None = None) -> None:
        node = seat.node if on is None else on
        self.dismiss(seat)
        self._say(f"a worker did not start ({self._room.name_of(seat.node)}): {why}")
        if self._machines.note_failed_start(node) and not self._avoid(node, f"workers do not start: {why}"):
            raise RunError(f"worker after worker does not start; the last one said: {why}")

    def _start_ran_out_of_memory(self, seat: Seat) -> None:
        """Others may have taken it, as long as there are others."""
        if self._limit() == 1:
            return self._start_failed(seat, f"its machine {NO_MEMORY}; {MORE_MEMORY}")
        self.dismiss(seat)
        self.note_out_of_memory(seat, [])
        if self._machines.note_failed_start(seat.node):
            self._avoid(seat.node, "there is no memory for workers to start")

    def _avoid(self, node: str, why: str) -> bool:
        """Place no worker there any more; False if there would be no room left elsewhere."""
        others = {*self._machines.avoided, node}
        if not node or not self._room.slots(without=others):
            return False
        if node not in self._machines.avoided:
            self._machines.avoided[node] = why
            self._say(f"{self._room.name_of(node)} is avoided from now on: {why}")
            self._forget([shortage for shortage in self._shortages if shortage.node == node])
            for seat in list(self._unplaced()):
                self.dismiss(seat)  # it may be placed there yet
        return True

    def _unplaced(self) -> Iterator[Seat]:
        return (seat for seat in self.seats if not seat.node)
