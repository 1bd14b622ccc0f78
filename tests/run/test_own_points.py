"""A run whose recipe names files: its grid goes to the workers with the plan, and its regions must be there."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, ContractError
from pipeline.run.opening import PlannedRun, plan_run
from pipeline.settings import Settings
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from pipeline.work.device import Device
from tests.fake_segmenter import FakeSegmenter
from tests.fakes_run import Notes, fake_weights
from tests.small_runs import RECIPE, rows_of, work

POINTS = [[0.5, 0.25], [0.125, 0.75]]


def opened(settings: Settings, store: Store) -> PlannedRun:
    return plan_run(settings, settings.out, store, fake_weights(settings, store), Notes())


def context_with(run: PlannedRun, point_grid: object) -> WorkerContext:
    generate = Device(FakeSegmenter(), run.planned.plan.settings.recipe).generate
    there = pickle.loads(pickle.dumps(point_grid))  # as it travels to a worker
    return WorkerContext(run.out, run.planned.plan, run.store, generate, point_grid=there)


def test_every_image_is_asked_at_the_points_of_the_file(settings: Settings, store: Store, tmp_path: Path) -> None:
    """Read once, where the command runs: a machine of a cluster need not have it."""
    (tmp_path / "grid.json").write_text(json.dumps(POINTS))
    recipe = replace(RECIPE, point_grid=str(tmp_path / "grid.json"), stability_score_thresh=0.0, box_nms_thresh=1.0)
    run = opened(replace(settings, recipe=recipe), store)
    (tmp_path / "grid.json").unlink()
    context = context_with(run, run.point_grid)
    work(context)
    rows = rows_of(context)
    found = {
        (mask.point_xy[0] / row.width, mask.point_xy[1] / row.height) for row in rows for mask in row.masks if row.masks
    }
    assert found == {(x, y) for x, y in POINTS}
    with pytest.raises(ContractError, match="grid of points"):
        work(context_with(run, None))


def test_a_folder_of_regions_that_is_not_there_is_refused_before_any_work(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.roi=.*nowhere"):
        opened(replace(settings, recipe=replace(RECIPE, roi=str(tmp_path / "nowhere"))), store)
    assert not Path(settings.out).exists()
