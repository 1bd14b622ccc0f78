"""A thousand machines in one process: the real driver, crew, ledger and machines, with a clock and a Ray that are not.

`SimulatedRay` stands where the rooms import `ray`, and for the module `time`. Its clock moves when the driver waits for
answers and there are none. A machine has room for one worker, which does two chunks one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import pytest
from ray import NodeID
from ray.exceptions import ActorDiedError, RayTaskError

from pipeline.cluster.crew import WorkerKind
from pipeline.cluster.driver import Driver
from pipeline.cluster.ledger import Ledger
from pipeline.cluster.metrics import RunMetrics
from pipeline.errors import DeniedError, StorageError
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard
from pipeline.records import Attempt, ChunkReport, Ending, Funnel, Shard
from pipeline.settings import RunSettings, Settings
from pipeline.signals import StopFlag
from tests.cluster.test_metrics import Remembering
from tests.fakes_run import Notes

STEP_S = 20.0
LOADING_S = 30.0
CHUNK_S = 60.0
NOTICE_S = 12.0
"""Seconds after which Ray knows that a machine is gone."""


class Ailment(StrEnum):
    """What a machine does to every chunk, in milliseconds."""

    REFUSED = "refused"
    BROKEN_STORE = "broken store"
    DEADLY = "deadly"


@dataclass
class Machine:
    name: str
    ailment: Ailment | None = None
    node_id: str = field(default_factory=lambda: NodeID.from_random().hex())
    dies_at: float = math.inf
    """When its workers end; that the machine has gone with them is known after NOTICE_S."""
    worker: Worker | None = None


@dataclass(eq=False)
class Ref:
    """An answer that is there from a moment on."""

    ready_at: float = math.inf
    value: Any = None
    error: Exception | None = None


@dataclass(eq=False)
class Worker:
    """An actor: waits for a machine that is not excluded, then answers as the machine lets it."""

    ray: SimulatedRay
    excluded: frozenset[str]
    machine: Machine | None = None
    refs: list[Ref] = field(default_factory=list[Ref])
    free_at: float = 0.0

    def __post_init__(self) -> None:
        self._placed, self._started = Ref(), Ref()
        self.node = SimpleNamespace(remote=lambda: self._placed)
        self.start = SimpleNamespace(remote=lambda: self._started)
        self.run = SimpleNamespace(remote=self._run)

    def place(self, machine: Machine) -> None:
        self.machine, machine.worker = machine, self
        self._placed.ready_at, self._placed.value = self.ray.now, machine.node_id
        self._started.ready_at = self.free_at = self.ray.now + (0.1 if machine.ailment else LOADING_S)

    def _run(self, attempt: Attempt, journal: Any) -> Ref:
        assert self.machine is not None
        journal.mark.remote(attempt.key, attempt.chunk.start)
        self.free_at = max(self.free_at, self.ray.now) + (0.01 if self.machine.ailment else CHUNK_S)
        ref = Ref(self.free_at)
        chunk_id = attempt.chunk.chunk_id
        match self.machine.ailment:
            case Ailment.REFUSED:
                ref.error = RayTaskError("run", "", DeniedError(f"{chunk_id}: refused (403)"))
            case Ailment.BROKEN_STORE:
                ref.error = RayTaskError("run", "", StorageError(f"{chunk_id}: the store does not answer"))
            case Ailment.DEADLY:
                ref.error = ActorDiedError()
            case _:
                ref.value = ChunkReport(chunk_id, won=True, images={"ok": 1}, masks=0, funnel=Funnel())
        self.refs.append(ref)
        return ref


@dataclass
class SimulatedRay:
    """What the driver, the crew, the capacity and the journal ask of Ray and of the clock."""

    machines: list[Machine]
    now: float = 1000.0
    waiting: list[Worker] = field(default_factory=list[Worker])

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._advance(seconds)

    def put(self, thing: object) -> object:
        return thing

    def get(self, ref: Ref, timeout: float | None = None) -> Any:
        assert ref.ready_at <= self.now, "the driver waits for an answer without a limit"
        if ref.error is not None:
            raise ref.error
        return ref.value

    def wait(self, refs: Sequence[Ref], *, num_returns: int, timeout: float, fetch_local: bool) -> Any:
        ready = [ref for ref in refs if ref.ready_at <= self.now]
        if not ready and timeout:
            self._advance(STEP_S)
        return ready[:num_returns], []

    def kill(self, actor: Any) -> None:
        if isinstance(actor, Worker):
            if actor in self.waiting:
                self.waiting.remove(actor)
            if actor.machine is not None and actor.machine.worker is actor:
                actor.machine.worker = None
            self._place()

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": machine.node_id,
                "Alive": self.now < machine.dies_at + NOTICE_S,
                "Resources": {"CPU": 1.0},
                "NodeManagerAddress": f"at-{machine.name}",
            }
            for machine in self.machines
        ]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(len(self.machines))}

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: NodeID.from_random().hex())

    def remote(self, **_how: object) -> Callable[[type], Any]:
        return lambda made: SimpleNamespace(remote=lambda: _Actor(made()))

    def options(self, *, label_selector: dict[str, str] | None = None) -> Any:
        excluded = frozenset((label_selector or {}).get("ray.io/node-id", "!in()")[4:-1].split(","))
        return SimpleNamespace(remote=lambda _spec: self._ask(excluded))

    def _ask(self, excluded: frozenset[str]) -> Worker:
        worker = Worker(self, excluded)
        self.waiting.append(worker)
        self._place()
        return worker

    def _place(self) -> None:
        """Broken machines first: they are ready before the others in any case."""
        free = [machine for machine in self.machines if machine.worker is None and self.now < machine.dies_at]
        for worker in list(self.waiting):
            place = next((machine for machine in free if machine.node_id not in worker.excluded), None)
            if place is not None:
                free.remove(place)
                self.waiting.remove(worker)
                worker.place(place)

    def _advance(self, seconds: float) -> None:
        before, self.now = self.now, self.now + seconds
        for machine in self.machines:
            if before < machine.dies_at <= self.now and machine.worker is not None:
                for ref in machine.worker.refs:
                    if ref.ready_at > before:
                        ref.ready_at, ref.error = self.now, ActorDiedError()


class _Actor:
    """An actor whose methods answer at once."""

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        def call(*args: object) -> Ref:
            return Ref(0.0, getattr(self._thing, name)(*args))

        return SimpleNamespace(remote=call)


@dataclass
class Simulated:
    """How it ended."""

    ray: SimulatedRay
    ledger: Ledger
    notes: Notes
    avoided: tuple[str, ...]
    ending: Ending
    seconds: float

    @property
    def lost_attempts(self) -> int:
        return self.ledger.attempts.total() - self.ledger.plan.chunk_count


def simulate(patch: pytest.MonkeyPatch, machines: list[Machine], *, chunks: int, attempts: int = 5) -> Simulated:
    """A run of so many chunks on these machines. Raises what the driver raises."""
    ray = SimulatedRay(machines)
    for module in ("driver", "crew", "slots", "capacity", "journal", "part_poller"):
        patch.setattr(f"pipeline.cluster.{module}.time", ray)
        patch.setattr(f"pipeline.cluster.{module}.ray", ray, raising=False)
    settings = RunSettings(address="auto", images_per_chunk=1, chunk_attempts=attempts)
    ledger = Ledger.open(plan_of(chunks, settings), committed=(), attempts_allowed=attempts, from_the_start=True)
    notes = Notes()
    driver = Driver(
        ledger,
        WorkerKind(lambda **_resources: ray, spec=None, device="cpu"),
        settings,
        committed_now=set,
        progress=notes,
        metrics=RunMetrics("o", make=Remembering().make),
    )
    begun = ray.now
    ending = driver.run(StopFlag())
    return Simulated(ray, ledger, notes, driver.crew.avoided, ending, ray.now - begun)


def plan_of(chunks: int, settings: RunSettings) -> Plan:
    output_settings = OutputSettings.of(Settings(source="s", out="o", run=settings), weights_sha256="w")
    shard = Shard(name="a", uri="/a", kind="folder", member_count=chunks, ignored_count=0)
    return Plan(settings=output_settings, shards=(PlannedShard(shard=shard, first_ordinal=0, members_sha256=("m",)),))


def machines_of(count: int, *, ailing: int = 0, ailment: Ailment = Ailment.REFUSED) -> list[Machine]:
    return [Machine(f"m{number}", ailment if number < ailing else None) for number in range(count)]
