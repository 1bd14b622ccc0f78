"""Holes and islands, on run lengths."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.reference.official import segment_anything
from pipeline.masks.clean import Cleaned, clean_mask
from tests.masks import oracle

remove_small_regions = segment_anything.utils.amg.remove_small_regions

Mask_HW = npt.NDArray[np.bool_]


def cleaned(mask_HW: Mask_HW, *, below_area: int) -> tuple[Mask_HW, Cleaned]:
    """Our result as pixels, and as it is."""
    result = clean_mask(oracle.encode_mask(mask_HW), below_area=below_area)
    assert np.array_equal(result.rle.run_M, oracle.encode_mask(oracle.decode_mask(result.rle)).run_M)
    return oracle.decode_mask(result.rle), result


@pytest.mark.parametrize("below_area", [1, 4, 30, 10_000])
def test_cleaned_masks_are_the_released_ones(below_area: int) -> None:
    """Random blobs with holes and islands of every size, the empty and the full mask among them."""
    rng = np.random.default_rng(6)
    for level in np.linspace(0, 255, 12):
        noise_HW = cv2.GaussianBlur(rng.integers(0, 256, (60, 80)).astype(np.uint8), (0, 0), 1.5)
        mask_HW = noise_HW >= 128 + (level - 128) / 4
        filled_HW, holes = remove_small_regions(mask_HW, below_area, mode="holes")
        released_HW, islands = remove_small_regions(filled_HW, below_area, mode="islands")
        ours_HW, result = cleaned(mask_HW, below_area=below_area)
        assert np.array_equal(ours_HW, released_HW)
        assert result.changed == (holes or islands)


def test_small_frames_full_of_ties_are_cleaned_as_pixel_by_pixel() -> None:
    """Where several components are the largest, the one that OpenCV names first stays; every connection counts."""
    rng = np.random.default_rng(7)
    tied = 0
    for _ in range(1500):
        share, below_area = rng.random(), int(rng.choice([0, 1, 2, 3, 6, 5000]))
        mask_HW = rng.random(rng.integers(1, 24, 2)) < share
        expected_HW = oracle.clean_mask(mask_HW, below_area=below_area)
        ours_HW, result = cleaned(mask_HW, below_area=below_area)
        assert np.array_equal(ours_HW, expected_HW)
        assert result.changed == (expected_HW is not mask_HW)
        assert result.largest_area == oracle.largest_component_area(expected_HW)
        tied += result.changed and 0 < result.largest_area < below_area
    assert tied > 100


def test_a_mask_without_flaws_is_handed_back_itself() -> None:
    """Whether a mask was touched decides which duplicate stays."""
    mask_HW = np.zeros((20, 20), dtype=np.bool_)
    mask_HW[5:15, 5:15] = True
    rle = oracle.encode_mask(mask_HW)
    assert clean_mask(rle, below_area=100).rle is rle
    assert clean_mask(rle, below_area=101).changed  # all parts small: the largest stays, but it counts


def test_pixels_that_touch_at_a_corner_are_one_component() -> None:
    """8-connectivity, for the mask and for its holes: OpenCV's other choice would split both."""
    diagonal_HW = np.eye(6, dtype=np.bool_)
    _, result = cleaned(diagonal_HW, below_area=6)
    assert (result.changed, result.largest_area) == (False, 6)
    holed_HW = np.ones((8, 8), dtype=np.bool_)
    holed_HW[[2, 3, 4], [2, 3, 4]] = False
    assert not cleaned(holed_HW, below_area=3)[1].changed
    assert cleaned(holed_HW, below_area=4)[0].all()


def test_holes_are_filled_before_islands_are_removed() -> None:
    """A ring of few pixels around a hole grows to a component large enough to stay."""
    mask_HW = np.zeros((30, 30), dtype=np.bool_)
    mask_HW[4:9, 4:9] = True
    mask_HW[5:8, 5:8] = False
    mask_HW[15:28, 15:28] = True
    cleaned_HW, _ = cleaned(mask_HW, below_area=20)
    assert cleaned_HW[4:9, 4:9].all()
    assert cleaned_HW.sum() == 25 + 169


def test_the_largest_component_of_nothing_is_nothing() -> None:
    """An empty mask must be dropped by any limit above 0, not crash."""
    for mask_HW, area in [(np.zeros((3, 3), dtype=np.bool_), 0), (np.ones((3, 3), dtype=np.bool_), 9)]:
        for below_area in (0, 5, 50):
            assert cleaned(mask_HW, below_area=below_area)[1].largest_area == area or below_area > 9 > area
