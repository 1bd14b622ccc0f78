"""Duplicates: which of N boxes survive, and in which order they are preferred.

Owns the orders of preference. Every one is total: equal candidates keep the order they came in.
Legend: N boxes, K kept, M after the one in hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.masks.arrays import Flags, Floats, Integers
from pipeline.masks.candidates import Candidates
from pipeline.masks.rle import Rle
from pipeline.settings import CropRank


def best_first(score_N: Floats | Integers) -> Integers:
    """(N,) positions by falling score."""
    return np.argsort(-score_N, kind="stable")


def order_across_crops(candidates: Candidates[Rle], rank: CropRank) -> Integers:
    """(N,) positions, the preferred duplicate first; see `CropRank`."""
    if rank is CropRank.LAYER:
        by_iou = best_first(candidates.predicted_iou_N)
        return by_iou[best_first(candidates.layer_N[by_iou])]
    x0, y0, x1, y1 = candidates.crop_xyxy_N4.T
    # float32 as in the released code, in which two areas that differ by less than its precision are a tie.
    return best_first(np.float32(1) / ((x1 - x0) * (y1 - y0)).astype(np.float32))


def untouched_first(changed_N: Flags) -> Integers:
    """(N,) positions, those that the clean-up changed after the others."""
    return np.argsort(changed_N, kind="stable")


def box_nms(box_xyxy_N4: Integers, order_N: Integers, *, iou_thresh: float) -> Integers:
    """Greedy non-maximum suppression: (K,) positions that stay, in the given order.

    A box falls if its IoU with a better one that stays is above `iou_thresh`. Areas are (x1 - x0) * (y1 - y0), so two
    boxes without area have no IoU and both stay. Arithmetic is torchvision's on the CPU: float32, compared in float64.
    """
    boxes_N4 = box_xyxy_N4[order_N].astype(np.float32)
    areas_N = (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])
    alive_N = np.ones(len(boxes_N4), dtype=np.bool_)
    for i in range(len(boxes_N4)):
        if alive_N[i]:
            alive_N[i + 1 :] &= ~(_iou_with_later(boxes_N4, areas_N, i) > iou_thresh)
    return order_N[alive_N]


def winners(
    box_xyxy_N4: Integers, order_N: Integers, kept_K: Integers, *, iou_thresh: float
) -> dict[int, tuple[int, float]]:
    """For each box that `box_nms` removed the position of the first better one that made it fall, and their IoU.

    kept_K  what `box_nms` returned for these boxes, in this order, with this threshold
    """
    boxes_N4 = box_xyxy_N4[order_N].astype(np.float32)
    areas_N = (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])
    stays, beaten = set(kept_K.tolist()), dict[int, tuple[int, float]]()
    for i, position in enumerate(order_N.tolist()):
        if position in stays:
            iou_M = _iou_with_later(boxes_N4, areas_N, i)
            for later in np.flatnonzero(iou_M > iou_thresh).tolist():
                beaten.setdefault(int(order_N[i + 1 + later]), (position, float(iou_M[later])))
    return beaten


def _iou_with_later(boxes_N4: npt.NDArray[Any], areas_N: npt.NDArray[Any], i: int) -> npt.NDArray[np.float64]:
    """Of box i with each box after it."""
    low_M2 = np.maximum(boxes_N4[i, :2], boxes_N4[i + 1 :, :2])
    high_M2 = np.minimum(boxes_N4[i, 2:], boxes_N4[i + 1 :, 2:])
    sides_M2 = np.maximum(high_M2 - low_M2, np.float32(0))
    shared_M = sides_M2[:, 0] * sides_M2[:, 1]
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, which is not above any threshold
        return (shared_M / (areas_N[i] + areas_N[i + 1 :] - shared_M)).astype(np.float64)
