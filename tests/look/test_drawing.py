"""The drawn masks against those that pycocotools decodes, pixel by pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco

from pipeline.errors import StorageError
from pipeline.look.drawing import LONGER_SIDE, Picture, drawn_over, grey, scaled, shown_hw, topmost
from pipeline.records import Mask
from tests.masks.oracle import encode_mask

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""pycocotools' own call of numpy."""

Mask_HW = npt.NDArray[np.bool_]


def as_mask(mask_HW: Mask_HW) -> Mask:
    return Mask(
        counts=encode_mask(mask_HW).packed(),
        bbox_xywh=(0.0, 0.0, 0.0, 0.0),
        area=int(mask_HW.sum()),
        predicted_iou=0.9,
        stability_score=0.96,
        point_xy=(0.5, 0.5),
        crop_box_xywh=(0.0, 0.0, 1.0, 1.0),
        crop_layer=0,
        multimask_index=0,
    )


def some_masks(hw: tuple[int, int]) -> list[Mask]:
    """Rectangles and noise of many sizes, one with a hole, an empty one, a full one and one of a single pixel."""
    random = np.random.default_rng(1)
    masks = [np.zeros(hw, np.bool_) for _ in range(6)]
    for mask_HW in masks[:4]:
        (y0, y1), (x0, x1) = np.sort(random.integers(0, hw[0] + 1, 2)), np.sort(random.integers(0, hw[1] + 1, 2))
        mask_HW[y0:y1, x0:x1] = random.random((y1 - y0, x1 - x0)) < 0.7
    masks[4][-1, -1] = True
    ring_HW = np.zeros(hw, np.bool_)
    ring_HW[hw[0] // 4 : hw[0] // 2 + 1, hw[1] // 4 :] = True
    ring_HW[hw[0] // 3, hw[1] // 2] = False
    return [as_mask(mask_HW) for mask_HW in [*masks, ring_HW, np.ones(hw, np.bool_)]]


def decoded(mask: Mask, hw: tuple[int, int]) -> Mask_HW:
    return coco.decode({"size": list(hw), "counts": mask.counts.encode()}).astype(np.bool_)


def middles(size: int, shown: int) -> list[int]:
    """By arithmetic of its own: where the middle of each shown pixel falls."""
    return [int((number + 0.5) * size / shown) for number in range(shown)]


def expected_top(masks: list[Mask], hw: tuple[int, int]) -> npt.NDArray[np.int32]:
    """The largest first, so that each smaller one covers it."""
    height, width = shown_hw(hw)
    top_hw = np.zeros((height, width), np.int32)
    for area, number in sorted(((mask.area, -number) for number, mask in enumerate(masks)), reverse=True):
        assert area == masks[-number].area
        shown = decoded(masks[-number], hw)[middles(hw[0], height)][:, middles(hw[1], width)]
        top_hw[shown] = 1 - number
    return top_hw


@pytest.mark.parametrize("hw", [(1, 1), (1, 7), (40, 1), (37, 53), (480, 640), (2000, 7), (1500, 2250)])
def test_each_pixel_shows_the_smallest_mask_that_pycocotools_decodes_there(hw: tuple[int, int]) -> None:
    """A picture whose masks are off by a pixel, or turned, would be worse than none."""
    masks = some_masks(hw)
    top_hw, edge_hw = topmost(masks, hw)
    assert np.array_equal(top_hw, expected_top(masks, hw))
    assert not edge_hw[top_hw == 0].any()
    assert max(top_hw.shape) <= LONGER_SIDE


def test_outside_of_every_mask_the_image_is_as_it_was_and_inside_every_mask_has_one_colour() -> None:
    """Over black a fill is one colour; the outline is brighter, and lies where the mask has a neighbour outside."""
    hw = 30, 40
    large_HW, small_HW = np.zeros(hw, np.bool_), np.zeros(hw, np.bool_)
    large_HW[5:25, 5:35] = True
    small_HW[10:20, 10:20] = True
    image_HW3: Picture = np.random.default_rng(0).integers(0, 255, (*hw, 3), dtype=np.uint8)
    masks = [as_mask(small_HW), as_mask(large_HW)]
    drawn_hw3 = drawn_over(image_HW3, masks, hw)
    assert np.array_equal(drawn_hw3[~large_HW], image_HW3[~large_HW])
    black_hw3 = drawn_over(np.zeros((*hw, 3), np.uint8), masks, hw)
    colours = {tuple(black_hw3[y, x]) for y, x in ((7, 7), (23, 33), (7, 33))}
    assert len(colours) == 1
    assert tuple(black_hw3[15, 15]) not in colours
    inner_HW = np.zeros(hw, np.bool_)
    inner_HW[6:24, 6:34] = True
    edge_HW = large_HW & ~inner_HW
    assert black_hw3[edge_HW].max(axis=1).min() > black_hw3[inner_HW & ~small_HW].max()
    assert len(np.unique(black_hw3[edge_HW], axis=0)) == 1


def test_neighbours_in_a_long_list_differ_in_colour() -> None:
    """A thousand masks must not share a few colours in a row."""
    hw = 1, 1000
    stripes = [np.arange(1000)[None] == column for column in range(1000)]
    drawn_hw3 = drawn_over(np.zeros((*shown_hw(hw), 3), np.uint8), [as_mask(stripe) for stripe in stripes], hw)
    difference = np.abs(np.diff(drawn_hw3[0].astype(int), axis=0)).max(axis=1)
    assert difference.min() > 40


@pytest.mark.parametrize("counts", ["", "!", "0", "\x7f", "T"])
def test_run_lengths_that_are_none_or_do_not_fill_the_image_are_refused(counts: str) -> None:
    """A page must not show half a mask as if it were one."""
    damaged = Mask(counts, (0.0, 0.0, 0.0, 0.0), 4, 0.9, 0.9, (0.0, 0.0), (0.0, 0.0, 1.0, 1.0), 0, 0)
    with pytest.raises(StorageError, match="run lengths"):
        drawn_over(grey((4, 6)), [damaged], (4, 6))


@pytest.mark.parametrize(("hw", "expected"), [((40, 60), (40, 60)), ((1800, 900), (900, 450)), ((1, 10**5), (1, 900))])
def test_only_images_that_are_larger_than_a_picture_are_scaled(hw: tuple[int, int], expected: tuple[int, int]) -> None:
    """Both sides by the same factor, and never to nothing."""
    assert scaled(np.zeros((*hw, 3), np.uint8)).shape == (*expected, 3)
    assert grey(hw).shape == (*expected, 3)
