"""Chunks done one by one in this process, and what became of them."""

from __future__ import annotations

from pipeline.records import ChunkReport, ImageRow
from pipeline.run.chunk import Bench, Errand, process_chunk
from pipeline.run.device import Device
from pipeline.run.plan import Shape, part_uri
from pipeline.run.planning import create_or_load_plan
from pipeline.settings import Settings
from pipeline.storage.parts import Part, read_part
from pipeline.storage.store import Store
from tests.fakes_run import FakeSegmenter
from tests.run.conftest import RECIPE

device = Device(FakeSegmenter(), RECIPE)


def bench_of(settings: Settings, store: Store) -> Bench:
    shape = Shape.of(settings, weights_sha256="w" * 64)
    plan = create_or_load_plan(shape, out=settings.out, store=store).plan
    return Bench(out=settings.out, plan=plan, store=store, generate=device.generate)


def work(bench: Bench) -> list[ChunkReport]:
    return [process_chunk(Errand(chunk), bench) for chunk in bench.plan.chunks()]


def part_of(bench: Bench, number: int = 0) -> Part:
    chunk = list(bench.plan.chunks())[number]
    return read_part(bench.store.read(part_uri(bench.out, bench.plan, chunk)), format=bench.plan.shape.format)


def rows_of(bench: Bench) -> list[ImageRow]:
    return [row for number in range(bench.plan.chunk_count) for row in part_of(bench, number).rows]
