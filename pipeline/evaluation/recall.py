"""AR@1000: how much of the truth a set of masks covers, whatever its classes. And how many of the masks are right.

Owns the matching. It is COCO's, in each image: masks in the order of their scores, each takes the free truth that it
overlaps most, if that is at least the threshold. A range of areas is matched on its own truths alone, which gives the
recall that COCO's rule for ignored truths gives.
Legend: D masks, T truths, I IoU thresholds, R ranges of areas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.truths import Floats, Truths
from pipeline.masks.overlap import pairwise_iou

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MOST_MASKS = 1000
"""Masks of an image that count: those with the highest scores."""
AREA_RANGES = {
    "all": (0, 10**10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 10**10),
    "from 100 px": (100, 10**10),
}
"""Pixels of the image itself, both ends included, as in COCO; the last is what the recipe sa1b may find at all."""


@dataclass(frozen=True, slots=True)
class RecallCounts:
    """Of one image or of many; counts add up.

    truths_R    int64
    matched_RI  int64, truths that got a mask
    right_I     int64, masks with a truth at that IoU or more; several masks may have the same truth
    compared    masks that right_I is of: at most MOST_MASKS of an image
    """

    images: int
    masks: int
    truths_R: npt.NDArray[np.int64]
    matched_RI: npt.NDArray[np.int64]
    right_I: npt.NDArray[np.int64]
    compared: int

    def __add__(self, other: RecallCounts) -> RecallCounts:
        return RecallCounts(
            self.images + other.images,
            self.masks + other.masks,
            self.truths_R + other.truths_R,
            self.matched_RI + other.matched_RI,
            self.right_I + other.right_I,
            self.compared + other.compared,
        )

    def average_recall(self, area_range: str) -> float:
        """Mean over the thresholds of the share of the range's truths that were found; NaN without truths."""
        r = list(AREA_RANGES).index(area_range)
        return float((self.matched_RI[r] / self.truths_R[r]).mean()) if self.truths_R[r] else float("nan")

    def truths(self, area_range: str) -> int:
        return int(self.truths_R[list(AREA_RANGES).index(area_range)])

    def recall_at(self, iou: float) -> float:
        """Share of all truths that were found at one of the thresholds; NaN without truths."""
        found = self.matched_RI[0, _threshold(iou)]
        return float(found / self.truths_R[0]) if self.truths_R[0] else float("nan")

    def right_share(self, iou: float) -> float:
        """Share of the masks that have a truth at one of the thresholds, of whatever area; NaN without masks."""
        return float(self.right_I[_threshold(iou)] / self.compared) if self.compared else float("nan")


def _threshold(iou: float) -> int:
    return int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))


_NONE_RI: npt.NDArray[np.int64] = np.zeros((len(AREA_RANGES), len(IOU_THRESHOLDS)), np.int64)
NO_IMAGES = RecallCounts(0, 0, _NONE_RI[:, 0], _NONE_RI, _NONE_RI[0], 0)


def total_recall(images: Iterable[tuple[Sequence[str], Sequence[float], Truths]]) -> RecallCounts:
    """Of many images: each one's masks, their scores and its truths."""
    counted = (count_recall(counts_D, np.array(score_D, np.float64), truths) for counts_D, score_D, truths in images)
    return sum(counted, NO_IMAGES)


def count_recall(counts_D: Sequence[str], score_D: Floats, truths: Truths) -> RecallCounts:
    """One image. Of equal scores the mask that stands first goes first."""
    best = np.argsort(-score_D, kind="stable")[:MOST_MASKS]
    ordered = [counts_D[int(d)] for d in best]
    iou_DT = pairwise_iou(ordered, truths.counts_T, truths.hw)
    inside_RT = np.array([(low <= truths.area_T) & (truths.area_T <= high) for low, high in AREA_RANGES.values()])
    matched_RI = [
        [match_greedily(iou_DT[:, inside_T], threshold).sum() for threshold in IOU_THRESHOLDS] for inside_T in inside_RT
    ]
    return RecallCounts(
        images=1,
        masks=len(counts_D),
        truths_R=inside_RT.sum(1),
        matched_RI=np.array(matched_RI, np.int64),
        right_I=(iou_DT.max(axis=1, initial=0.0)[:, None] >= IOU_THRESHOLDS).sum(axis=0),
        compared=len(ordered),
    )


def match_greedily(iou_DT: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """(T,): which truths get a mask of their own, masks in order; of equally good free truths the last is taken."""
    free_T = np.ones(iou_DT.shape[1], np.bool_)
    if not iou_DT.size:
        return ~free_T
    for iou_T in iou_DT[(iou_DT >= threshold).any(axis=1)]:
        free_iou_T = np.where(free_T, iou_T, -1.0)
        best = len(free_T) - 1 - int(free_iou_T[::-1].argmax())
        if free_iou_T[best] >= threshold:
            free_T[best] = False
    return ~free_T
