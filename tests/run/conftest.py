"""What the tests of a run share: one Ray session with more CPUs than the machine, and small sources."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.generate import LOCAL_RAY
from pipeline.records import ChunkReport, ImageRow
from pipeline.run.chunk import Bench, Errand, process_chunk
from pipeline.run.device import Device
from pipeline.run.plan import Shape, part_uri
from pipeline.run.planning import create_or_load_plan
from pipeline.run.session import FindWeights, Outcome, run_settings
from pipeline.run.signals import StopFlag
from pipeline.settings import Format, Recipe, RunSettings, Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.parts import Part, read_part
from pipeline.storage.store import Store
from tests.fakes_run import FakeSegmenter, Notes, drawn_image, fake_weights, write_folder, write_tar

os.environ.update(LOCAL_RAY)
os.environ.update({"RAY_worker_niceness": "0"})  # Ray's own is 15, which on a busy machine is next to nothing
os.environ.pop("RAY_ADDRESS", None)

RECIPE = Recipe(points_per_side=4)
"""Sixteen points an image: enough for masks, cheap enough for many runs."""


@pytest.fixture(scope="session")
def cluster(s3_endpoint: str) -> Iterator[str]:
    """The address of a Ray session that in-process drivers find, and other processes may join.

    After the S3 server: its credentials are in the environment that the workers inherit.
    """
    # Not at the top: Ray reads the environment above when it is imported.
    import ray

    init: Any = ray.init
    context = init(
        address="local",
        num_cpus=4,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 * 2**20,
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def store() -> Store:
    return connect(StoreSettings(retry_deadline_s=1.0))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight images and a tar with five: two shards."""
    folder = tmp_path_factory.mktemp("source")
    write_folder(folder, {f"im{number}.png": drawn_image(number) for number in range(8)})
    write_tar(folder / "more.tar", {f"sa_{number}.png": drawn_image(100 + number) for number in range(5)})
    return folder


@pytest.fixture
def settings(source: Path, tmp_path: Path) -> Settings:
    """Five chunks of the two shards, into a new OUT."""
    return small_run(source, tmp_path / "out")


def small_run(source: Path, out: Path) -> Settings:
    run = RunSettings(images_per_chunk=3, max_workers=2)
    return Settings(source=str(source), out=str(out), recipe=RECIPE, run=run)


def with_run(settings: Settings, **changes: object) -> Settings:
    return replace(settings, run=replace(settings.run, **changes))  # type: ignore[arg-type]


def parts_of(out: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((Path(out) / "data").iterdir())}


@pytest.fixture(scope="session")
def finished(cluster: str, source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Outcome]:
    """A run that one worker has finished; read only."""
    settings = small_run(source, tmp_path_factory.mktemp("finished") / "out")
    return settings, run(with_run(settings, max_workers=1))


def run(settings: Settings, *, find_weights: FindWeights = fake_weights, notes: Notes | None = None) -> Outcome:
    return run_settings(settings, progress=notes or Notes(), find_weights=find_weights, stop=StopFlag())


def rows_at(out: str | Path) -> list[ImageRow]:
    return [row for part in parts_of(out).values() for row in read_part(part, format=Format.PARQUET).rows]


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
