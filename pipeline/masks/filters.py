"""Which candidates are good enough: predicted IoU, stability, crop edges, area.

Legend: N candidates.
"""

from __future__ import annotations

import math

import torch

from pipeline.masks.crops import Crop
from pipeline.settings import Recipe


def predicted_iou_cut(recipe: Recipe) -> float:
    """What a predicted IoU must exceed. A threshold of 0 or less lets everything pass, as in the released code."""
    return recipe.pred_iou_thresh if recipe.pred_iou_thresh > 0 else -math.inf


def stability_scores(tight_N: torch.Tensor, loose_N: torch.Tensor) -> torch.Tensor:
    """How little each mask changes when its cut-off moves by an offset.

    tight_N  int64, pixels whose logit is above +offset
    loose_N  int64, pixels whose logit is above -offset
    returns  (N,) float32 in [0, 1]: the first per the second; 0 if there are none of the latter
    source   arXiv:2304.02643 section 4 (the released code has NaN for 0/0, which no threshold above 0 passes either)
    """
    return torch.where(loose_N > 0, tight_N.float() / loose_N.clamp(min=1).float(), 0.0)


def at_crop_edge(box_xyxy_N4: torch.Tensor, crop: Crop, *, image_hw: tuple[int, int], tolerance: float) -> torch.Tensor:
    """(N,) bool: some side of the box (image frame) is within `tolerance` pixels of the crop's and not of the image's.

    Such a mask is likely cut off by the crop; another crop shows it whole.
    """
    height, width = image_hw
    crop_4 = torch.tensor(crop.box_xyxy, device=box_xyxy_N4.device)
    image_4 = torch.tensor((0, 0, width, height), device=box_xyxy_N4.device)
    near_crop_N4 = (box_xyxy_N4 - crop_4).abs() <= tolerance
    near_image_N4 = (box_xyxy_N4 - image_4).abs() <= tolerance
    return (near_crop_N4 & ~near_image_N4).any(dim=1)


def covers_too_much(area: int, *, image_hw: tuple[int, int], max_fraction: float | None) -> bool:
    """The mask fills `max_fraction` of the image or more; never if that is None. Source: the paper, appendix B."""
    height, width = image_hw
    return max_fraction is not None and area / (height * width) >= max_fraction
