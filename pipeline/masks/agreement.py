"""How far two lists of masks of one image are the same: which masks are partners, and in count, pixels, scores, order.

Owns the pairing and the words for how near partners are. `make compare` and the benchmarks count by it.
Legend: R reference masks, O other masks.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.masks.overlap import pairwise_iou

SAME_IOU = 0.9999
"""IoU from which two masks count as the same."""
SIMILAR_IOU = 0.9
"""IoU from which two masks show the same thing: what a lower precision is judged by."""
SAME_SCORE = 1e-4
"""Difference of scores up to which they count as the same."""


class ScoredMask(Protocol):
    """A mask of any origin."""

    @property
    def counts(self) -> str:
        """COCO's packed run lengths."""
        ...

    @property
    def predicted_iou(self) -> float: ...

    @property
    def stability_score(self) -> float | None:
        """None where it is not told."""
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """Partners, by their numbers in the two lists."""

    reference: int
    other: int
    iou: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """The other masks beside the reference's.

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


def agreement(reference: Sequence[ScoredMask], other: Sequence[ScoredMask], *, image_hw: tuple[int, int]) -> Agreement:
    """raises  as `partners`"""
    return agreement_of(partners(reference, other, image_hw=image_hw), reference, other)


def agreement_of(pairs: Sequence[Pair], reference: Sequence[ScoredMask], other: Sequence[ScoredMask]) -> Agreement:
    """What `partners` of these two lists amount to."""
    matched = [pair for pair in pairs if pair.iou >= SAME_IOU]
    similar = [pair for pair in pairs if pair.iou >= SIMILAR_IOU]
    alone = len(reference) - len(pairs)
    differences = [score_differences(reference[pair.reference], other[pair.other]) for pair in similar]
    return Agreement(
        reference=len(reference),
        count=len(other),
        matched=len(matched),
        similar=len(similar),
        mean_iou=sum(pair.iou for pair in pairs) / len(reference) if reference else 1.0,
        least_iou=0.0 if alone else min((pair.iou for pair in pairs), default=1.0),
        identical=sum(reference[pair.reference].counts == other[pair.other].counts for pair in pairs),
        score_difference=max((abs(each) for two in differences for each in two if each is not None), default=0.0),
        same_order=len(matched) == len(reference) == len(other) and all(p.reference == p.other for p in matched),
    )


def total(agreements: Sequence[Agreement]) -> Agreement:
    """Of many images: counts added up, the mean over all reference masks, the extremes of all."""
    reference = sum(each.reference for each in agreements)
    iou = sum(each.mean_iou * each.reference for each in agreements)
    return Agreement(
        reference=reference,
        count=sum(each.count for each in agreements),
        matched=sum(each.matched for each in agreements),
        similar=sum(each.similar for each in agreements),
        mean_iou=iou / reference if reference else 1.0,
        least_iou=min((each.least_iou for each in agreements), default=1.0),
        identical=sum(each.identical for each in agreements),
        score_difference=max((each.score_difference for each in agreements), default=0.0),
        same_order=all(each.same_order for each in agreements),
    )


def partners(reference: Sequence[ScoredMask], other: Sequence[ScoredMask], *, image_hw: tuple[int, int]) -> list[Pair]:
    """Each reference mask with at most one other: identical ones first, then greedily by falling IoU.

    Of equal IoUs the pair whose reference mask comes first, then whose other mask does. Masks that share no pixel are
    no pair. The sum of the IoUs is at least half of the best that any pairing has (greedy weighted matching).

    raises  ValueError if the run lengths of a mask cannot be read or do not fill the image
    """
    return list(_partners(reference, other, image_hw))


def _partners(
    reference: Sequence[ScoredMask], other: Sequence[ScoredMask], image_hw: tuple[int, int]
) -> Iterator[Pair]:
    places: dict[str, deque[int]] = defaultdict(deque)
    for o, mask in enumerate(other):
        places[mask.counts].append(o)
    left_R: list[int] = []
    for r, mask in enumerate(reference):
        if places[mask.counts]:
            yield Pair(r, places[mask.counts].popleft(), 1.0)
        else:
            left_R.append(r)
    left_O = sorted(o for rest in places.values() for o in rest)
    iou_RO = pairwise_iou([reference[r].counts for r in left_R], [other[o].counts for o in left_O], image_hw)
    rows, columns = np.nonzero(iou_RO)
    free_R, free_O = np.ones(len(left_R), np.bool_), np.ones(len(left_O), np.bool_)
    for best in np.argsort(-iou_RO[rows, columns], kind="stable"):
        row, column = int(rows[best]), int(columns[best])
        if free_R[row] and free_O[column]:
            free_R[row] = free_O[column] = False
            yield Pair(left_R[row], left_O[column], float(iou_RO[row, column]))


def score_differences(reference: ScoredMask, other: ScoredMask) -> tuple[float, float | None]:
    """By how much the other's predicted IoU and stability are higher; None where one does not tell its stability."""
    scores = reference.stability_score, other.stability_score
    predicted_iou = other.predicted_iou - reference.predicted_iou
    if scores[0] is None or scores[1] is None:
        return predicted_iou, None
    # 0/0 pixels: the released score is NaN, ours 0.
    before, after = (0.0 if math.isnan(score) else score for score in (scores[0], scores[1]))
    return predicted_iou, after - before
