"""Numbers for images and masks: unique in the run, and a function of the plan alone.

Owns the id rules. Does not know files, stores or parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.masks.crops import points_per_side
from pipeline.settings import Recipe

OUTPUTS_PER_POINT = 3
"""Segment Anything predicts three masks for one point."""

MAX_ID = 2**53
"""Ids stay below this: JSON readers that keep numbers as float64 must not round them."""


def shared_numbers(numbers: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Those that occur more than once in all the arrays together, each once, sorted."""
    ordered = np.sort(np.concatenate([np.zeros(0, np.int64), *numbers]))
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def id_base(numbers: Sequence[npt.NDArray[np.int64]]) -> int:
    """What is added to an image's ordinal to make its id: one more than the largest number, 0 if there are no numbers.

    Only images without a number of their own get such an id; for the others the number is the id. So the two kinds
    never meet, and where no image has a number ids are ordinals.
    """
    return max((int(array.max()) for array in numbers if len(array)), default=-1) + 1


def candidates_per_image(recipe: Recipe, *, grid_points: int = 0) -> int:
    """Masks that the grid of every crop can propose, the most that an image can end with.

    grid_points  of the grid of a file, which every crop has; 0 if the recipe has its own
    """
    total = 0
    for layer in range(recipe.crop_n_layers + 1):
        total += 4**layer * (grid_points or points_per_side(recipe, layer) ** 2) * OUTPUTS_PER_POINT
    return total


def annotation_stride(recipe: Recipe, *, images: int, grid_points: int = 0) -> int:
    """Distance between the first annotation ids of neighbouring ordinals: the power of two that holds any image.

    grid_points  as of `candidates_per_image`
    raises  ConfigError if the run's ids would not fit below 2^53
    """
    stride = 1
    candidates = candidates_per_image(recipe, grid_points=grid_points)
    while stride < candidates:
        stride *= 2
    if images * stride >= MAX_ID:
        raise ConfigError(
            f"{images} images with up to {candidates} masks each need annotation ids beyond 2^53; "
            "split the source into several runs, or lower recipe.points_per_side or recipe.crop_n_layers, or "
            "the points of recipe.point_grid"
        )
    return stride
