"""Compile what the first mask would compile, before anybody waits for an image.

Owns a segmenter that answers with one square with a hole, so that every compiled function is called once with the
types that it will see. Takes about ten seconds of a core where nothing is cached, a fraction of one elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.masks.generator import generate_masks
from pipeline.settings import Recipe

SIDE = 16
"""Pixels of the image and of the input square, and cells of the logits."""
RECIPE = Recipe(points_per_side=1, crop_n_layers=1, min_mask_region_area=9, crop_edge_tolerance=0)


@dataclass(frozen=True)
class _Crop:
    crop_hw: tuple[int, int]
    resized_hw: tuple[int, int] = (SIDE, SIDE)


@dataclass(frozen=True)
class _Square:
    """Predictions: one mask."""

    point_index_N: torch.Tensor
    mask_index_N: torch.Tensor
    predicted_iou_N: torch.Tensor
    logits_Nhw: torch.Tensor


class _OneSquare:
    input_side = SIDE
    outputs_per_prompt = 1

    def encode(self, crops_HW3: Sequence[npt.NDArray[np.uint8]]) -> list[_Crop]:
        return [_Crop((crop_HW3.shape[0], crop_HW3.shape[1])) for crop_HW3 in crops_HW3]

    def decode(self, crop: _Crop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float) -> _Square:
        logits_1hw = torch.full((1, SIDE, SIDE), -20.0)
        logits_1hw[:, 4:12, 4:12] = 20.0
        logits_1hw[:, 7, 7] = -20.0
        zero_1 = torch.zeros(1, dtype=torch.int64)
        return _Square(zero_1, zero_1, torch.ones(1), logits_1hw)


def warm_up() -> int:
    """Masks of the square that were kept: more than none, or something was not called."""
    [result] = generate_masks([np.zeros((SIDE, SIDE, 3), np.uint8)], _OneSquare(), RECIPE)
    return len(result.masks)
