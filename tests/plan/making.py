"""A plan as a run makes or finds it, without weights."""

from __future__ import annotations

from pipeline.plan.plan import OutputSettings, Plan
from pipeline.plan.planning import create_or_load_plan
from pipeline.settings import Settings
from pipeline.storage.store import Store


def shape_of(settings: Settings) -> OutputSettings:
    return OutputSettings.of(settings, weights_sha256="w" * 64)


def make(settings: Settings, store: Store) -> Plan:
    return create_or_load_plan(shape_of(settings), out=settings.out, store=store).plan
