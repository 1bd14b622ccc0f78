"""The straightforward way to everything that the generator computes without full-size arrays.

Legend: N candidates, h w low-resolution cells, H W pixels of a crop, S the model's square input side, L labels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pipeline.masks.rle import Rle, unpacked

Mask_HW = npt.NDArray[np.bool_]


def upscale_logits(
    logits_Nhw: torch.Tensor, *, input_side: int, resized_hw: tuple[int, int], crop_hw: tuple[int, int]
) -> torch.Tensor:
    """(N, H, W) float32 logits on the crop's pixels: up to the input square, padding cut off, then to the crop.

    Both steps are bilinear with pixel centres as in the released code, whose three channels are kept: with one thread
    torch's CPU kernel for three channels rounds differently (5e-7) than the one for any other number.
    """
    count = len(logits_Nhw)
    planes = F.pad(logits_Nhw, (0, 0, 0, 0, 0, -count % 3)).reshape(-1, 3, *logits_Nhw.shape[-2:])
    square = F.interpolate(planes, (input_side, input_side), mode="bilinear", align_corners=False)
    inside = square[..., : resized_hw[0], : resized_hw[1]]
    return F.interpolate(inside, crop_hw, mode="bilinear", align_corners=False).flatten(0, 1)[:count]


def count_above(logits_NHW: torch.Tensor, cut: float) -> torch.Tensor:
    """(N,) int64 pixels."""
    return (logits_NHW > cut).flatten(1).sum(dim=1)


def mask_boxes(masks_NHW: torch.Tensor) -> torch.Tensor:
    """(N, 4) int64 XYXY of the first and last row and column inside each bool mask; zeros for an empty mask."""
    x0, x1 = _first_and_last(masks_NHW.any(dim=1))
    y0, y1 = _first_and_last(masks_NHW.any(dim=2))
    return torch.stack([x0, y0, x1, y1], dim=1)


def _first_and_last(hit_NL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the first and last True of each row; 0 and 0 where there is none."""
    position_L = torch.arange(hit_NL.shape[1], device=hit_NL.device)
    last_N = torch.where(hit_NL, position_L, 0).amax(dim=1)
    first_N = torch.where(hit_NL, position_L, last_N[:, None]).amin(dim=1)
    return first_N, last_N


def encode_mask(mask_HW: Mask_HW) -> Rle:
    """Runs of any mask of at least one pixel; empty and full ones included."""
    flat = mask_HW.T.ravel()
    ends = np.flatnonzero(np.diff(flat, prepend=False))
    return Rle(mask_HW.shape, np.diff(np.concatenate([[0], ends, [flat.size]])))


def decode_mask(rle: Rle) -> Mask_HW:
    """(H, W) bool, the exact inverse of `encode_mask`."""
    height, width = rle.hw
    inside = np.arange(len(rle.run_M)) % 2 == 1
    return np.repeat(inside, rle.run_M).reshape(width, height).T


def decode_counts(hw: tuple[int, int], counts: str) -> Mask_HW:
    """(H, W) bool of COCO's compressed string. pycocotools' own decoder warns under NumPy 2."""
    return decode_mask(Rle(hw, unpacked(counts)))


def clean_mask(mask_HW: Mask_HW, *, below_area: int) -> Mask_HW:
    """Fill holes, then remove islands of fewer than `below_area` pixels; the very same array if there are none."""
    return _without_islands(_without_holes(mask_HW, below_area), below_area)


def largest_component_area(mask_HW: Mask_HW) -> int:
    """Pixels of the largest component; 0 for an empty mask."""
    _, areas_L = _components(mask_HW)
    return int(areas_L[1:].max(initial=0))


def _without_holes(mask_HW: Mask_HW, below_area: int) -> Mask_HW:
    """Any small component of the background is a hole, at the image's border too."""
    labels_HW, areas_L = _components(~mask_HW)
    hole_L = areas_L < below_area
    hole_L[0] = False
    return mask_HW | hole_L[labels_HW] if hole_L.any() else mask_HW


def _without_islands(mask_HW: Mask_HW, below_area: int) -> Mask_HW:
    """If all components are small, the (first) largest stays."""
    labels_HW, areas_L = _components(mask_HW)
    stays_L = areas_L >= below_area
    stays_L[0] = False
    if stays_L[1:].all():
        return mask_HW
    if not stays_L.any():
        stays_L[1 + areas_L[1:].argmax()] = True
    return stays_L[labels_HW]


def _components(mask_HW: Mask_HW) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(H, W) label of each pixel, and the area of each label; label 0 is what lies outside the mask."""
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    return labels_HW.astype(np.int32, copy=False), stats[:, cv2.CC_STAT_AREA].astype(np.int32, copy=False)
