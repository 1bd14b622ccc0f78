"""Small runs: made, worked off without Ray or with it, and read back. What more than one room's tests need of them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from pipeline.plan.layout import part_uri
from pipeline.plan.plan import OutputSettings
from pipeline.plan.planning import create_or_load_plan
from pipeline.records import Attempt, ChunkReport, ImageRow
from pipeline.run.outcome import Outcome
from pipeline.run.session import run_settings
from pipeline.settings import Format, Recipe, RunSettings, Settings
from pipeline.signals import StopFlag
from pipeline.storage.parts import Part, read_part
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.loading import FindWeights
from tests.fakes_run import FakeGenerator, Notes, fake_weights

RECIPE = Recipe(points_per_side=4)
"""Sixteen points an image: enough for masks, cheap enough for many runs."""


def small_run(source: Path, out: Path) -> Settings:
    """By one worker, which is a process less than two; a test that is about several says so."""
    run = RunSettings(images_per_chunk=3, max_workers=1)
    return Settings(source=str(source), out=str(out), recipe=RECIPE, run=run)


def with_run(settings: Settings, **changes: object) -> Settings:
    return replace(settings, run=replace(settings.run, **changes))  # type: ignore[arg-type]


def recipe_overrides(recipe: Recipe) -> list[str]:
    """Every one of its settings for a command, whose model may bring others."""
    values = {setting.name: getattr(recipe, setting.name) for setting in fields(recipe)}
    return [f"recipe.{name}={'null' if value is None else value}" for name, value in values.items()]


def parts_of(out: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((Path(out) / "data").iterdir())}


def run(settings: Settings, *, find_weights: FindWeights = fake_weights, notes: Notes | None = None) -> Outcome:
    return run_settings(settings, progress=notes or Notes(), find_weights=find_weights, stop=StopFlag())


def rows_at(out: str | Path) -> list[ImageRow]:
    return [row for part in parts_of(out).values() for row in read_part(part, format=Format.PARQUET).rows]


generate = FakeGenerator(RECIPE)


def context_of(settings: Settings, store: Store) -> WorkerContext:
    output_settings = OutputSettings.of(settings, weights_sha256="w" * 64)
    plan = create_or_load_plan(output_settings, out=settings.out, store=store).plan
    return WorkerContext(out=settings.out, plan=plan, store=store, generate=generate)


def work(context: WorkerContext) -> list[ChunkReport]:
    return [process_chunk(Attempt(chunk), context) for chunk in context.plan.chunks()]


def part_of(context: WorkerContext, number: int = 0) -> Part:
    chunk = list(context.plan.chunks())[number]
    return read_part(
        context.store.read(part_uri(context.out, context.plan, chunk)), format=context.plan.settings.format
    )


def rows_of(context: WorkerContext) -> list[ImageRow]:
    return [row for number in range(context.plan.chunk_count) for row in part_of(context, number).rows]
