"""The file of a grid: its forms, and that a run goes on with the same points alone."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, ContractError
from pipeline.plan.plan import OutputSettings, Plan, plan_from_json, plan_to_json
from pipeline.plan.planning import create_or_load_plan
from pipeline.plan.point_grid import read_point_grid
from pipeline.settings import Settings
from pipeline.storage.store import Store

POINTS = [[0.25, 0.5], [1.0, 0.0], [0.1, 0.9]]


def npy(points: Any, **how: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, points, **how)
    return sink.getvalue()


def with_grid(settings: Settings, path: Path) -> Settings:
    return replace(settings, recipe=replace(settings.recipe, point_grid=str(path), crop_n_layers=1))


def planned(settings: Settings, store: Store) -> Plan:
    grid = read_point_grid(settings.recipe.point_grid, store)
    asked = OutputSettings.of(settings, weights_sha256="w" * 64, point_grid=grid)
    return create_or_load_plan(asked, out=settings.out, store=store).plan


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.npy", npy(np.array(POINTS))),
        ("a.NPY", npy(np.asfortranarray(POINTS, np.dtype(">f8")))),
        ("a.json", json.dumps(POINTS).encode()),
        ("a.csv", b"0.25,0.5\n1,0\n0.1,0.9\n"),
        ("b.csv", b"\xef\xbb\xbfX, y\r\n0.25, 0.5\r\n\r\n1.0,0.0\r\n0.1,0.9"),
    ],
)
def test_the_same_points_are_the_same_grid_in_every_form(
    name: str, data: bytes, settings: Settings, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "first.json").write_text(json.dumps(POINTS))
    first = planned(with_grid(settings, tmp_path / "first.json"), store)
    (tmp_path / name).write_bytes(data)
    grid = read_point_grid(str(tmp_path / name), store)
    assert grid is not None
    assert grid.points_xy_P2.tolist() == POINTS
    assert planned(with_grid(settings, tmp_path / name), store) == first


def test_other_points_under_the_same_name_are_refused(settings: Settings, store: Store, tmp_path: Path) -> None:
    """Half of a dataset prompted elsewhere is worse than none."""
    asked = with_grid(settings, tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(POINTS))
    plan = planned(asked, store)
    named = plan.settings.named()
    assert len(named["recipe.point_grid_sha256"]) == 64
    assert (named["recipe.point_grid_points"], "recipe.point_grid" in named) == (3, False)
    (tmp_path / "a.json").write_text(json.dumps(POINTS[::-1]))
    with pytest.raises(ConfigError, match=r"other settings: recipe\.point_grid_sha256 '.*' -> '.*'\. Resume"):
        planned(asked, store)
    with pytest.raises(ConfigError, match=r"point_grid_sha256 '.*' -> None"):
        planned(replace(settings, recipe=replace(settings.recipe, crop_n_layers=1)), store)


def test_ids_have_room_for_every_mask_of_the_grid(settings: Settings, store: Store, tmp_path: Path) -> None:
    """The recipe's own grid has 16 points; this one has 1,000 in each of five crops, three masks each."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((1000, 2)))
    assert planned(with_grid(settings, tmp_path / "a.npy"), store).annotation_stride == 16384


def test_region_and_colour_survive_the_plans_file(settings: Settings, store: Store, tmp_path: Path) -> None:
    recipe = replace(settings.recipe, roi=str(tmp_path / "x" / ".." / "masks"), nodata=(255, 0, 7))
    plan = planned(replace(settings, recipe=recipe), store)
    assert plan.settings.recipe.roi == str(tmp_path / "masks")
    assert plan_from_json(plan_to_json(plan), uri="plan").settings == plan.settings


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"0.5,0.5", "must end in .npy, .csv, .json"),
        ("a.npy", b"0.5,0.5", "cannot be read as .npy"),
        ("a.npy", npy(np.array([{}]), allow_pickle=True), "cannot be read as .npy: Object arrays cannot be loaded"),
        ("a.npy", npy(np.array(POINTS))[:-1], "cannot be read as .npy"),
        ("a.npy", b"", "cannot be read as .npy"),
        ("a.csv", b"0.5;0.5", "cannot be read as .csv"),
        ("a.csv", b"0.5,0.5\n0.5\n", "must be numbers, two a point"),
        ("a.csv", b"\xff\xfe0", "cannot be read as .csv"),
        ("a.json", b"[[0.5, 0.5", "cannot be read as .json"),
        ("a.json", b"[" * 100_000, "cannot be read as .json"),
        ("a.json", b'{"x": 1}', "must be numbers"),
        ("a.json", b"[[320, 240]]", r"shares of a crop's sides; point 0 is \(320\.0, 240\.0\)"),
        ("nowhere/a.npy", None, "cannot be read: "),
    ],
)
def test_a_file_that_is_no_grid_is_refused_with_why(
    name: str, data: bytes | None, reason: str, store: Store, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=f"recipe.point_grid=.*{reason}"):
        read_point_grid(str(tmp_path / name), store)


def test_a_grid_that_was_not_read_is_a_broken_promise(settings: Settings, tmp_path: Path) -> None:
    """A run that forgets the file would prompt the recipe's own grid and call it another one."""
    with pytest.raises(ContractError, match="was not read"):
        OutputSettings.of(with_grid(settings, tmp_path / "a.npy"), weights_sha256="w")
