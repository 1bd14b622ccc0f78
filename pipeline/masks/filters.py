"""Which candidates are good enough: predicted IoU, stability, crop edges, area.

Legend: N candidates.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.masks.arrays import Flags, Floats, Integers
from pipeline.masks.crops import Crop
from pipeline.settings import Recipe


def predicted_iou_cut(recipe: Recipe) -> float:
    """What a predicted IoU must exceed. A threshold of 0 or less lets everything pass, as in the released code."""
    return recipe.pred_iou_thresh if recipe.pred_iou_thresh > 0 else -math.inf


def stability_scores(tight_N: Integers, loose_N: Integers) -> Floats:
    """How little each mask changes when its cut-off moves by an offset.

    tight_N  pixels whose logit is above +offset
    loose_N  pixels whose logit is above -offset
    returns  (N,) in [0, 1]: the first per the second, divided in float32; 0 if there are none of the latter
    source   arXiv:2304.02643 section 4 (the released code has NaN for 0/0, which no threshold above 0 passes either)
    """
    ratio_N = tight_N.astype(np.float32) / np.maximum(loose_N, 1).astype(np.float32)
    return np.where(loose_N > 0, ratio_N, np.float32(0))


def at_crop_edge(box_xyxy_N4: Integers, crop: Crop, *, image_hw: tuple[int, int], tolerance: float) -> Flags:
    """(N,): some side of the box (image frame) is within `tolerance` pixels of the crop's and not of the image's.

    Such a mask is likely cut off by the crop; another crop shows it whole.
    """
    height, width = image_hw
    near_crop_N4 = np.abs(box_xyxy_N4 - np.array(crop.box_xyxy)) <= tolerance
    near_image_N4 = np.abs(box_xyxy_N4 - np.array([0, 0, width, height])) <= tolerance
    return np.logical_or.reduce(near_crop_N4 & ~near_image_N4, axis=1)


def covers_too_much(area_N: Integers, *, image_hw: tuple[int, int], max_fraction: float | None) -> Flags:
    """(N,): the mask fills `max_fraction` of the image or more; none does if that is None. Source: appendix B."""
    height, width = image_hw
    return area_N / (height * width) >= (math.inf if max_fraction is None else max_fraction)
