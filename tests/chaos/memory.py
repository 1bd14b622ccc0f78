"""What a worker keeps in memory, over thousands of images.

A worker without Ray: two chunks at once in one process, JPEGs read from disk, masks, parts written to disk. The model
is a segmenter that costs little, so that everything around it is what grows, if anything does.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.cluster.crew import CHUNKS_IN_FLIGHT
from pipeline.masks.warm_up import warm_up
from pipeline.plan.plan import OutputSettings, Plan
from pipeline.plan.planning import create_or_load_plan
from pipeline.records import Attempt
from pipeline.settings import Recipe, RunSettings, Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.device import Device
from tests.fake_segmenter import FakeSegmenter

SIZE_HW = (600, 900)
DRAWN = 20
"""Different images; each is listed many times."""
STEPS = 10
MOST = 0.05
"""Growth that is accepted."""


def memory(folder: Path, *, images: int) -> tuple[list[str], list[str]]:
    """Lines of a report, and what is wrong."""
    torch.set_num_threads(1)
    peaks = list(memory_over(images, folder))
    # The first tenth fills caches and pools that are kept.
    growth = peaks[-1][1] / peaks[0][1] - 1
    lines = [
        f"chaos memory: {growth:+.1%} from image {peaks[0][0]:,} to {peaks[-1][0]:,}, at most {MOST:.0%} is allowed"
    ]
    lines += [f"  {done:6,} images  {mib:6.0f} MiB" for done, mib in peaks]
    return lines, [f"a worker's memory grew by {growth:.1%}"] if growth > MOST else []


def memory_over(images: int, folder: Path) -> Iterator[tuple[int, float]]:
    """(images done, the most resident MiB that were seen while the last tenth of them was done)"""
    settings = _settings(images, folder)
    store = connect(settings.store)
    plan = create_or_load_plan(OutputSettings.of(settings, weights_sha256="f" * 64), out=settings.out, store=store).plan
    device = Device(FakeSegmenter(), plan.settings.recipe)
    context = WorkerContext(out=settings.out, plan=plan, store=store, generate=device.generate)
    warm_up()
    yield from _worked(plan, context, images)


def _worked(plan: Plan, context: WorkerContext, images: int) -> Iterator[tuple[int, float]]:
    done, highest = 0, 0.0
    with ThreadPoolExecutor(CHUNKS_IN_FLIGHT) as pool:
        for report in pool.map(lambda attempt: process_chunk(attempt, context), map(Attempt, plan.chunks())):
            before, done = done, done + sum(report.images.values())
            highest = max(highest, resident_mib())
            if done * STEPS // images > before * STEPS // images:
                yield done, highest
                highest = 0.0


def resident_mib() -> float:
    """This process's resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _settings(images: int, folder: Path) -> Settings:
    height, width = SIZE_HW
    random = np.random.default_rng(0)
    lines: list[str] = []
    for number in range(DRAWN):
        small = Image.fromarray(random.integers(0, 255, (20, 30, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BILINEAR).save(folder / f"{number}.jpg")
    lines += [str(folder / f"{number % DRAWN}.jpg") for number in range(images)]
    (folder / "images.txt").write_text("\n".join(lines))
    return Settings(
        source=str(folder / "images.txt"),
        out=str(folder / "out"),
        recipe=Recipe(points_per_side=4),
        store=StoreSettings(),
        run=RunSettings(images_per_chunk=20),
    )
