"""Two outputs of one source that differ in their masks, made without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.comparison.compare import compare_outputs
from pipeline.comparison.outputs import open_output
from pipeline.comparison.records import Comparison
from pipeline.records import Attempt
from pipeline.settings import Recipe, Settings
from pipeline.storage.store import Store
from pipeline.work.chunk import process_chunk
from pipeline.work.device import Device
from tests.fake_segmenter import FakeSegmenter
from tests.look.conftest import pictures
from tests.small_runs import RECIPE, context_of, small_run

__all__ = ["pictures"]

OTHER = replace(RECIPE, points_per_side=5, box_nms_thresh=0.6)
"""Other points give other squares, of which some are near those of `RECIPE`."""

Make = Callable[..., Settings]


@pytest.fixture
def make(pictures: Path, tmp_path: Path, store: Store) -> Make:
    """Makes an output: its name, its recipe, how many of its chunks are done, other settings."""

    def output(
        name: str,
        recipe: Recipe = RECIPE,
        *,
        source: Path = pictures,
        chunks: int | None = None,
        images_per_chunk: int = 3,
        through: Store = store,
        **other: object,
    ) -> Settings:
        settings = small_run(source, tmp_path / name)
        settings = replace(
            settings, recipe=recipe, run=replace(settings.run, images_per_chunk=images_per_chunk), **other
        )
        context = replace(context_of(settings, through), generate=Device(FakeSegmenter(), recipe).generate)
        for chunk in list(context.plan.chunks())[:chunks]:
            process_chunk(Attempt(chunk), context)
        return settings

    return output


@pytest.fixture
def compared(store: Store) -> Callable[..., Comparison]:
    def compare(a: Settings, b: Settings, *, shown: int = 12, through: Store = store) -> Comparison:
        return compare_outputs(open_output(a.out, through), open_output(b.out, through), shown=shown)

    return compare
