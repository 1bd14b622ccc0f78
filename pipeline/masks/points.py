"""Which points an image is asked about: the grids of its crop layers, without the points whose pixel is off.

Owns what a grid may be, and the rule: a point is prompted if the full-resolution pixel under it is on. A pixel is off
if it is outside the region of interest, or has the recipe's nodata colour. Does not know where grids and regions come
from.
Legend: P points, H W pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, ContractError
from pipeline.masks.arrays import Points
from pipeline.masks.crops import Crop, points_per_side, unit_grid
from pipeline.settings import Recipe

Region = npt.NDArray[np.bool_]
Image_HW3 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """What an image is asked beside its recipe.

    grids      (P, 2) float64 xy in [0, 1] of a crop, one a crop layer; None for those of the recipe
    region_HW  where points may lie, of the image's size; None for everywhere
    """

    grids: tuple[Points, ...] | None = None
    region_HW: Region | None = None


EVERYTHING = Prompts()
"""The recipe's grids, all over the image."""


def checked_grid(points: Any, name: str) -> Points:
    """A grid as it is given: (P, 2), xy in [0, 1] of a crop, in the order in which equal candidates are preferred.

    raises  ConfigError that begins with `name`
    """
    try:
        points_xy_P2 = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be numbers, two a point ({error})") from error
    if points_xy_P2.ndim != 2 or points_xy_P2.shape[1] != 2 or not len(points_xy_P2):
        shape = ", ".join(map(str, points_xy_P2.shape))
        raise ConfigError(f"{name} must have the shape (points, 2): x and y of each; it has ({shape})")
    wrong_P = ~((points_xy_P2 >= 0) & (points_xy_P2 <= 1)).all(axis=1)  # a NaN is wrong, too
    if wrong_P.any():
        number = int(wrong_P.argmax())
        x, y = points_xy_P2[number].tolist()
        raise ConfigError(f"{name} must have x and y in [0, 1], shares of a crop's sides; point {number} is ({x}, {y})")
    return points_xy_P2


def grids_of(recipe: Recipe, prompts: Prompts) -> tuple[Points, ...]:
    """One a crop layer.

    raises  ConfigError if there are too few of them, or the recipe names a file that nobody has read
    """
    if prompts.grids is None:
        if recipe.point_grid is not None:
            raise ConfigError("recipe.point_grid= is read by `generate` and `explain` alone; leave it out here")
        return tuple(unit_grid(points_per_side(recipe, layer)) for layer in range(recipe.crop_n_layers + 1))
    if len(prompts.grids) <= recipe.crop_n_layers:
        raise ConfigError(
            f"there are grids for {len(prompts.grids)} crop layers, and crop_n_layers={recipe.crop_n_layers} needs "
            f"{recipe.crop_n_layers + 1}: one for the full image and one for each layer"
        )
    return prompts.grids


def check_region(recipe: Recipe, prompts: Prompts, image_hw: tuple[int, int]) -> None:
    """raises  ContractError if the region is of another size; ConfigError if it should have been read and was not"""
    if prompts.region_HW is None:
        if recipe.roi is not None:
            raise ConfigError("recipe.roi= is read by `generate` and `explain` alone; leave it out here")
    elif prompts.region_HW.shape != image_hw:
        raise ContractError(f"a region of {prompts.region_HW.shape} pixels for an image of {image_hw}")


def crop_points(
    crop: Crop, grids: Sequence[Points], image_HW3: Image_HW3, recipe: Recipe, region_HW: Region | None
) -> Points:
    """(P, 2) xy in the crop's own pixels, in the grid's order: the points of its layer whose pixel is on."""
    height, width = crop.hw
    points_xy_P2 = grids[crop.layer] * np.array([width, height])
    if region_HW is None and recipe.nodata is None:
        return points_xy_P2
    # A point on the right or lower edge of the crop is on its last pixel.
    pixel_P2 = np.minimum(points_xy_P2.astype(np.int64), [width - 1, height - 1]) + crop.box_xyxy[:2]
    column_P, row_P = pixel_P2.T
    on_P = np.ones(len(points_xy_P2), np.bool_) if region_HW is None else region_HW[row_P, column_P]
    if recipe.nodata is not None:
        on_P = on_P & (image_HW3[row_P, column_P] != recipe.nodata).any(axis=1)
    return points_xy_P2[on_P]
