"""Overlap of run lengths against pycocotools, and pairs against the way they were found before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from benchmarks.peer_masks import PeerMask
from pipeline.masks.agreement import agreement, agreement_of, partners, score_differences, total
from pipeline.masks.overlap import pairwise_iou
from pipeline.masks.rle import pack_pixels

_coco: Any = coco_mask
HW = (37, 53)
Mask_HW = npt.NDArray[np.bool_]


def coco_iou(first: Sequence[str], second: Sequence[str], hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    rles: Any = [[{"size": list(hw), "counts": counts} for counts in masks] for masks in (first, second)]
    return np.asarray(_coco.iou(*rles, [0] * len(second)), np.float64)


def blobs(seed: int, count: int, hw: tuple[int, int] = HW) -> list[str]:
    """Rectangles with noise at their edges, some of them empty or full, some twice."""
    rng = np.random.default_rng(seed)
    masks: list[Mask_HW] = []
    for number in range(count):
        mask_HW = np.zeros(hw, np.bool_)
        y0, x0 = int(rng.integers(0, hw[0])), int(rng.integers(0, hw[1]))
        inside = mask_HW[y0 : y0 + int(rng.integers(1, 25)), x0 : x0 + int(rng.integers(1, 25))]
        inside[:] = rng.random(inside.shape) > (0.2 if number % 3 else 0.0)
        masks.append(mask_HW)
    masks += [np.zeros(hw, np.bool_), np.ones(hw, np.bool_), masks[0]]
    return [pack_pixels(mask_HW) for mask_HW in masks]


@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_iou_of_run_lengths_is_that_of_pycocotools_to_the_last_bit(seed: int, height: int, width: int) -> None:
    """With empty and full masks, frames of one pixel, and masks that touch no other."""
    first, second = blobs(seed, 6, (height, width)), blobs(seed + 1, 5, (height, width))
    expected = np.nan_to_num(coco_iou(first, second, (height, width)))
    assert np.array_equal(pairwise_iou(first, second, (height, width)), expected)


def test_lists_without_masks_have_no_pairs() -> None:
    """Zero masks is a valid result at every stage."""
    some = blobs(0, 2)
    assert pairwise_iou([], some, HW).shape == (0, 5)
    assert pairwise_iou(some, [], HW).shape == (5, 0)


@pytest.mark.parametrize(("counts", "said"), [("", "cannot be read"), ("0", "do not fill its image of 53 x 37")])
def test_damaged_run_lengths_are_an_error(counts: str, said: str) -> None:
    """A number made of the wrong pixels would look like any other."""
    with pytest.raises(ValueError, match=said):
        pairwise_iou([counts], blobs(0, 1), HW)


def pairs_by_the_largest_entry(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int, float]]:
    """Greedy as it is defined: take the largest IoU of the matrix, strike out its row and its column, repeat."""
    iou_RO = np.nan_to_num(coco_iou(first, second, HW))
    for r, counts in enumerate(first):  # an empty mask is identical to another one, whatever 0 / 0 is
        iou_RO[r] = np.where([counts == other for other in second], 1.0, iou_RO[r])
    pairs: list[tuple[int, int, float]] = []
    while iou_RO.max() > 0:
        row, column = (int(i) for i in np.unravel_index(int(iou_RO.argmax()), iou_RO.shape))
        pairs.append((row, column, float(iou_RO[row, column])))
        iou_RO[row] = iou_RO[:, column] = 0
    return pairs


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_partners_are_greedy_by_falling_iou_and_one_to_one(seed: int) -> None:
    """Ties too: each list has a mask twice, and both have an empty one and a full one."""
    first, second = blobs(seed, 12), blobs(seed, 8)[::-1]
    pairs = partners([PeerMask(each, 0.9) for each in first], [PeerMask(each, 0.9) for each in second], image_hw=HW)
    assert [(pair.reference, pair.other, pair.iou) for pair in pairs] == pairs_by_the_largest_entry(first, second)


def test_the_total_of_images_is_that_of_their_masks() -> None:
    """Means are over masks, so that an image with many counts as much as its masks do."""
    masks = [PeerMask(counts, 0.9) for counts in blobs(3, 9)]
    one = agreement(masks, masks, image_hw=HW)
    half = agreement(masks, masks[:4], image_hw=HW)
    both = total([one, half])
    assert both.reference == 2 * len(masks)
    assert both.count == len(masks) + 4
    assert both.identical == one.identical + half.identical
    assert both.mean_iou == pytest.approx((one.mean_iou + half.mean_iou) / 2)
    assert (both.least_iou, both.same_order) == (half.least_iou, False)
    assert total([]).mean_iou == 1.0


def test_scores_move_by_their_signed_difference_and_nan_is_zero() -> None:
    """The released stability of an empty mask is NaN, ours 0; some peers tell none."""
    here = PeerMask("", 0.9, 0.95)
    assert score_differences(here, PeerMask("", 0.8, float("nan"))) == pytest.approx((-0.1, -0.95))
    assert score_differences(here, PeerMask("", 0.9)) == (0.0, None)
    assert agreement_of([], [], []).agrees
