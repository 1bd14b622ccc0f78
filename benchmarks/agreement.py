"""How far two lists of masks are the same: count, pixels, scores, order.

Legend: R reference masks, O other masks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

_coco: Any = coco_mask

SAME_IOU = 0.9999
"""IoU from which two masks count as the same."""
SIMILAR_IOU = 0.9
"""IoU from which two masks show the same thing: what a lower precision is judged by."""
SAME_SCORE = 1e-4
"""Difference of scores up to which they count as the same."""


@dataclass(frozen=True, slots=True)
class PeerMask:
    """One mask as any peer can state it. `counts` is COCO's compressed RLE; `stability_score` where it is told."""

    counts: str
    predicted_iou: float
    stability_score: float | None = None


def rle_counts(mask_HW: npt.NDArray[Any]) -> str:
    """COCO's compressed RLE of a mask, nonzero inside."""
    packed: dict[str, bytes] = _coco.encode(np.asfortranarray(mask_HW != 0, dtype=np.uint8))
    return packed["counts"].decode("ascii")


@dataclass(frozen=True, slots=True)
class Agreement:
    """One peer's masks beside the reference's.

    matched               pairs with IoU >= SAME_IOU
    similar               pairs with IoU >= SIMILAR_IOU
    mean_iou              over the reference's masks, 0 for one without a partner; 1 if there is no mask
    least_iou             the lowest IoU of any pair; 0 if a reference mask has no partner, 1 if there is none to have
    identical             pairs with the same RLE
    score_difference      largest of predicted IoU and (where both tell it) stability, over the similar pairs
    same_order            the n-th mask of one is the n-th of the other, for all
    """

    reference: int
    count: int
    matched: int
    similar: int
    mean_iou: float
    least_iou: float
    identical: int
    score_difference: float
    same_order: bool

    @property
    def agrees(self) -> bool:
        everything = self.reference == self.count == self.matched
        return everything and self.same_order and self.score_difference <= SAME_SCORE


def agreement(reference: Sequence[PeerMask], other: Sequence[PeerMask], *, image_hw: tuple[int, int]) -> Agreement:
    """Pair each reference mask with at most one other, identical ones first, then by falling IoU."""
    pairs = list(_pairs(reference, other, image_hw))
    matched = [(r, o) for r, o, iou in pairs if iou >= SAME_IOU]
    similar = [(r, o) for r, o, iou in pairs if iou >= SIMILAR_IOU]
    alone = len(reference) - len(pairs)
    return Agreement(
        reference=len(reference),
        count=len(other),
        matched=len(matched),
        similar=len(similar),
        mean_iou=sum(iou for _, _, iou in pairs) / len(reference) if reference else 1.0,
        least_iou=0.0 if alone else min((iou for _, _, iou in pairs), default=1.0),
        identical=sum(reference[r].counts == other[o].counts for r, o, _ in pairs),
        score_difference=max((_difference(reference[r], other[o]) for r, o in similar), default=0.0),
        same_order=len(matched) == len(reference) == len(other) and all(r == o for r, o in matched),
    )


def _pairs(
    reference: Sequence[PeerMask], other: Sequence[PeerMask], image_hw: tuple[int, int]
) -> Iterator[tuple[int, int, float]]:
    """(reference index, other index, IoU), each index at most once; pairs that share no pixel are none."""
    places: dict[str, list[int]] = defaultdict(list)
    for o, mask in enumerate(other):
        places[mask.counts].append(o)
    left_R: list[int] = []
    for r, mask in enumerate(reference):
        if places[mask.counts]:
            yield r, places[mask.counts].pop(0), 1.0
        else:
            left_R.append(r)
    left_O = sorted(o for rest in places.values() for o in rest)
    if not left_R or not left_O:
        return
    iou_RO = _iou([reference[r] for r in left_R], [other[o] for o in left_O], image_hw)
    while iou_RO.max() > 0:
        row, column = (int(i) for i in np.unravel_index(int(iou_RO.argmax()), iou_RO.shape))
        yield left_R[row], left_O[column], float(iou_RO[row, column])
        iou_RO[row] = 0
        iou_RO[:, column] = 0


def _iou(
    reference: Sequence[PeerMask], other: Sequence[PeerMask], image_hw: tuple[int, int]
) -> npt.NDArray[np.float64]:
    rles = [[{"size": list(image_hw), "counts": mask.counts} for mask in masks] for masks in (reference, other)]
    iou_RO: npt.NDArray[np.float64] = _coco.iou(*rles, [0] * len(other))
    return np.nan_to_num(iou_RO)


def _difference(one: PeerMask, two: PeerMask) -> float:
    difference = abs(one.predicted_iou - two.predicted_iou)
    if one.stability_score is None or two.stability_score is None:
        return difference
    # 0/0 pixels: the released score is NaN, ours 0.
    stabilities = [0.0 if math.isnan(mask.stability_score or 0.0) else mask.stability_score for mask in (one, two)]
    return max(difference, abs((stabilities[0] or 0.0) - (stabilities[1] or 0.0)))
