"""Where to look: the zoomed crops of an image and the grid of points in each.

Owns their geometry alone; no pixels, no model.
Source: arXiv:2304.02643 appendix B; window sizes and rounding as in segment_anything 1.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.settings import Recipe


@dataclass(frozen=True, slots=True)
class Crop:
    """One window. `box_xyxy` is in image pixels, right and bottom exclusive; layer 0 is the full image."""

    box_xyxy: tuple[int, int, int, int]
    layer: int

    @property
    def hw(self) -> tuple[int, int]:
        x0, y0, x1, y1 = self.box_xyxy
        return y1 - y0, x1 - x0


def image_crops(image_hw: tuple[int, int], recipe: Recipe) -> list[Crop]:
    """The full image, then layer by layer its windows, columns of windows from left to right.

    Windows without a pixel (more windows than pixels along a side) are left out; all others are those of the released
    code, in its order.
    """
    height, width = image_hw
    crops = [Crop((0, 0, width, height), layer=0)]
    for layer in range(1, recipe.crop_n_layers + 1):
        overlap = int(recipe.crop_overlap_ratio * min(image_hw) * (2 / 2**layer))
        crops += [
            Crop((x0, y0, x1, y1), layer)
            for x0, x1 in _windows(width, 2**layer, overlap)
            for y0, y1 in _windows(height, 2**layer, overlap)
        ]
    return crops


def _windows(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """`count` equal [start, stop) intervals over [0, length), each sharing `overlap` pixels with the next."""
    window = math.ceil((overlap * (count - 1) + length) / count)
    starts = [index * (window - overlap) for index in range(count)]
    return [(start, min(start + window, length)) for start in starts if start < length]


def points_per_side(recipe: Recipe, layer: int) -> int:
    """Points along one side of a layer's grid, rounded down; ConfigError if none are left."""
    count = int(recipe.points_per_side / recipe.crop_n_points_downscale_factor**layer)
    if count < 1:
        raise ConfigError(
            f"crop layer {layer} would have no points (points_per_side={recipe.points_per_side} / "
            f"crop_n_points_downscale_factor={recipe.crop_n_points_downscale_factor}^{layer} < 1); "
            "raise points_per_side, or lower crop_n_points_downscale_factor or crop_n_layers"
        )
    return count


def grid_points(crop_hw: tuple[int, int], per_side: int) -> npt.NDArray[np.float64]:
    """(per_side squared, 2) float64 xy in the crop's own pixels: the centres of equal cells, row by row."""
    height, width = crop_hw
    return unit_grid(per_side) * np.array([width, height])


def unit_grid(per_side: int) -> npt.NDArray[np.float64]:
    """The same in a crop whose sides are 1."""
    margin = 1 / (2 * per_side)
    unit_P = np.linspace(margin, 1 - margin, per_side)
    return np.stack(np.meshgrid(unit_P, unit_P), axis=-1).reshape(-1, 2)
