"""A driver at work on a small run, with workers that start in a second (light.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from pipeline.cluster.crew import WorkerKind
from pipeline.cluster.driver import Driver
from pipeline.cluster.ledger import Ledger
from pipeline.cluster.metrics import RunMetrics
from pipeline.output.manifest import find_parts
from pipeline.plan.plan import OutputSettings, Plan
from pipeline.plan.planning import create_or_load_plan
from pipeline.records import Ending
from pipeline.settings import Settings
from pipeline.signals import StopFlag
from pipeline.storage.store import Store
from tests.cluster.light import LightSpec, Meet, Start, at_once, light_actor, nothing
from tests.cluster.test_metrics import Remembering
from tests.fakes_run import Notes, fake_weights


def planned(settings: Settings, store: Store) -> Plan:
    """As the command plans it, which can then go on."""
    weights = fake_weights(settings, store)
    output_settings = OutputSettings.of(settings, weights_sha256=weights.sha256)
    return create_or_load_plan(output_settings, out=settings.out, store=store).plan


@dataclass
class Drive:
    """What a driver with light workers made of a run."""

    ledger: Ledger
    notes: Notes = field(default_factory=Notes)
    series: Remembering = field(default_factory=Remembering)
    ending: Ending | None = None


def drive(
    settings: Settings,
    store: Store,
    meet: Meet = at_once,
    *,
    start: Start = nothing,
    actor_class: Callable[..., Any] = light_actor,
    notes: Notes | None = None,
    stop: StopFlag | None = None,
    suspects: Collection[str] = (),
    until: float = math.inf,
) -> Drive:
    """Until the driver's loop ends; `meet` is what each image does to its worker, `start` what loading does."""
    plan = planned(settings, store)
    committed = find_parts(plan, out=settings.out, store=store).committed
    ledger = Ledger.open(plan, committed=committed, attempts_allowed=settings.run.chunk_attempts, from_the_start=True)
    ledger.suspects.update(suspects)
    made = Drive(ledger, notes or Notes())
    driver = Driver(
        ledger,
        WorkerKind(actor_class, LightSpec(settings.out, plan, meet, start), device="cpu"),
        settings.run,
        committed_now=set,
        progress=made.notes,
        metrics=RunMetrics(settings.out, make=made.series.make),
    )
    made.ending = driver.run(stop or StopFlag(), until=until)
    return made
