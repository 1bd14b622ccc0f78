"""Holes and islands."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.masks.clean import clean_mask, largest_component_area
from tests.official import segment_anything

remove_small_regions = segment_anything.utils.amg.remove_small_regions


@pytest.mark.parametrize("below_area", [1, 4, 30, 10_000])
def test_cleaned_masks_are_the_released_ones(below_area: int) -> None:
    """Random blobs with holes and islands of every size, the empty and the full mask among them."""
    rng = np.random.default_rng(6)
    for level in np.linspace(0, 255, 12):
        noise_HW = cv2.GaussianBlur(rng.integers(0, 256, (60, 80)).astype(np.uint8), (0, 0), 1.5)
        mask_HW = noise_HW >= 128 + (level - 128) / 4
        filled_HW, holes = remove_small_regions(mask_HW, below_area, mode="holes")
        released_HW, islands = remove_small_regions(filled_HW, below_area, mode="islands")
        ours_HW = clean_mask(mask_HW, below_area=below_area)
        assert np.array_equal(ours_HW, released_HW)
        assert (ours_HW is not mask_HW) == (holes or islands)


def test_a_mask_without_flaws_is_handed_back_itself() -> None:
    """Whether a mask was touched decides which duplicate stays."""
    mask_HW = np.zeros((20, 20), dtype=np.bool_)
    mask_HW[5:15, 5:15] = True
    assert clean_mask(mask_HW, below_area=100) is mask_HW
    assert clean_mask(mask_HW, below_area=101) is not mask_HW  # all parts small: the largest stays, but it counts


def test_pixels_that_touch_at_a_corner_are_one_component() -> None:
    """8-connectivity, for the mask and for its holes: OpenCV's other choice would split both."""
    diagonal_HW = np.eye(6, dtype=np.bool_)
    assert clean_mask(diagonal_HW, below_area=6) is diagonal_HW
    assert largest_component_area(diagonal_HW) == 6
    holed_HW = np.ones((8, 8), dtype=np.bool_)
    holed_HW[[2, 3, 4], [2, 3, 4]] = False
    assert clean_mask(holed_HW, below_area=3) is holed_HW
    assert clean_mask(holed_HW, below_area=4).all()


def test_holes_are_filled_before_islands_are_removed() -> None:
    """A ring of few pixels around a hole grows to a component large enough to stay."""
    mask_HW = np.zeros((30, 30), dtype=np.bool_)
    mask_HW[4:9, 4:9] = True
    mask_HW[5:8, 5:8] = False
    mask_HW[15:28, 15:28] = True
    cleaned_HW = clean_mask(mask_HW, below_area=20)
    assert cleaned_HW[4:9, 4:9].all()
    assert cleaned_HW.sum() == 25 + 169


def test_the_largest_component_of_nothing_is_nothing() -> None:
    """An empty mask must be dropped by any limit above 0, not crash."""
    assert largest_component_area(np.zeros((3, 3), dtype=np.bool_)) == 0
    assert largest_component_area(np.ones((3, 3), dtype=np.bool_)) == 9
