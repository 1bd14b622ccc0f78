"""The first image of a worker must not be the one that pays for compilation."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from numba.core.registry import CPUDispatcher

import pipeline.masks
from benchmarks.reference.official import OfficialSegmenter
from pipeline.masks.generator import generate_masks
from pipeline.masks.warm_up import warm_up
from pipeline.settings import Recipe
from tests.masks.conftest import scene


def compiled_signatures() -> dict[str, int]:
    """How many argument types each compiled function of the room has been compiled for."""
    found: dict[str, int] = {}
    for info in pkgutil.iter_modules(pipeline.masks.__path__):
        module = importlib.import_module(f"pipeline.masks.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, CPUDispatcher):
                found[f"{value.py_func.__module__}.{name}"] = len(value.signatures)
    return found


def test_a_real_image_compiles_nothing_after_the_warm_up(mini_sam: Any) -> None:
    """With crops, clean-up and duplicates: all that a recipe can ask for."""
    warm_up()
    before = compiled_signatures()
    assert sum(before.values()) >= 4
    recipe = Recipe(points_per_side=8, crop_n_layers=1, min_mask_region_area=40)
    [result] = generate_masks([scene(240, 320, seed=4)], OfficialSegmenter(mini_sam), recipe)
    assert result.masks
    assert compiled_signatures() == before
