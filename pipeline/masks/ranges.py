"""Values of a recipe with which no masks can be made, each told in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.masks.crops import points_per_side
from pipeline.settings import Recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def not_finite_numbers(group: DataclassInstance) -> Iterator[str]:
    """Of any group of settings. They would also fail the ranges below, or slip through them."""
    for setting in fields(group):
        value = getattr(group, setting.name)
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{setting.name}={value} must be a finite number"


def out_of_range(recipe: Recipe) -> Iterator[str]:
    """recipe  of finite numbers"""
    at_least_1 = ("points_per_side", "points_per_batch", "crop_n_points_downscale_factor")
    at_least_0 = ("crop_n_layers", "min_mask_region_area", "drop_if_largest_below", "crop_edge_tolerance")
    shares = ("stability_score_thresh", "box_nms_thresh", "crop_nms_thresh")
    rules = [(name, getattr(recipe, name) >= 1, "1 or more") for name in at_least_1]
    rules += [(name, getattr(recipe, name) >= 0, "0 or more") for name in at_least_0]
    rules += [(name, 0 <= getattr(recipe, name) <= 1, "in [0, 1]") for name in shares]
    rules.append(("pred_iou_thresh", recipe.pred_iou_thresh <= 1, "1 or less"))
    rules.append(("crop_overlap_ratio", 0 <= recipe.crop_overlap_ratio < 1, "in [0, 1)"))
    rules.append(("stability_score_offset", recipe.stability_score_offset > 0, "above 0"))
    fraction = recipe.max_area_fraction
    nodata = recipe.nodata
    rules.append(("nodata", nodata is None or all(0 <= level <= 255 for level in nodata), "three levels in 0..255"))
    rules.append(("max_area_fraction", fraction is None or 0 < fraction <= 1, "in (0, 1], or null"))
    problems = [f"{name}={getattr(recipe, name)} must be {rule}" for name, holds, rule in rules if not holds]
    yield from problems
    if not problems:
        try:
            points_per_side(recipe, recipe.crop_n_layers)
        except ConfigError as error:
            yield f"crop_n_layers={recipe.crop_n_layers}: {error}"
