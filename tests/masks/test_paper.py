"""Where the paper's recipe (arXiv:2304.02643, appendix B) and the released code differ, on masks painted for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.masks.generator import generate_masks
from pipeline.records import ImageMasks
from pipeline.settings import CropRank, Recipe
from tests.fakes import Painted, PaintedSegmenter, Painter, always, paint
from tests.masks.oracle import decode_counts

ONE_POINT = Recipe(points_per_side=1)
SIDE = 100


def run(recipe: Recipe, painter: Painter, *, outputs: int = 1, side: int = SIDE) -> ImageMasks:
    image_HW3 = np.zeros((side, side, 3), dtype=np.uint8)
    segmenter = PaintedSegmenter(painter, side=side, outputs_per_prompt=outputs)
    return generate_masks([image_HW3], segmenter, recipe)[0]


def filled(*boxes: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    """A mask of XYXY boxes, right and bottom exclusive."""
    mask_HW = np.zeros((SIDE, SIDE), dtype=np.bool_)
    for x0, y0, x1, y1 in boxes:
        mask_HW[y0:y1, x0:x1] = True
    return mask_HW


@pytest.mark.parametrize(("rows", "kept"), [(94, 1), (95, 0), (100, 0)])
def test_masks_of_95_percent_of_the_image_or_more_are_dropped(rows: int, kept: int) -> None:
    """In the paper, not in the released code."""
    answer = always(paint(filled((0, 0, SIDE, rows))))
    result = run(replace(ONE_POINT, max_area_fraction=0.95), answer)
    assert (len(result.masks), result.funnel.too_large) == (kept, 1 - kept)
    assert len(run(ONE_POINT, answer).masks) == 1


def test_the_95_percent_are_measured_on_the_final_mask() -> None:
    """94.99 % with a hole is 95.0 % once the hole is filled."""
    mask_HW = filled((0, 0, SIDE, 95))
    mask_HW[40, 40] = False
    recipe = replace(ONE_POINT, max_area_fraction=0.95)
    assert len(run(recipe, always(paint(mask_HW))).masks) == 1
    result = run(replace(recipe, min_mask_region_area=100), always(paint(mask_HW)))
    assert (result.masks, result.funnel.too_large) == ((), 1)


def test_a_mask_whose_largest_component_is_small_is_dropped_whole() -> None:
    """The released code keeps the largest component, however small."""
    crumbs = always(paint(filled((0, 0, 9, 9), (50, 50, 60, 59), (20, 70, 25, 75))))
    released = replace(ONE_POINT, min_mask_region_area=100)
    [mask] = run(released, crumbs).masks
    assert mask.area == 90
    result = run(replace(released, drop_if_largest_below=100), crumbs)
    assert (result.masks, result.funnel.too_small) == ((), 1)
    [mask] = run(replace(released, drop_if_largest_below=90), crumbs).masks
    assert mask.area == 90


def test_a_small_mask_can_be_dropped_without_changing_the_others() -> None:
    """The two settings are independent: no clean-up, no third duplicate removal."""
    answer = always(paint(filled((0, 0, 9, 9), (50, 50, 52, 52))), paint(filled((30, 0, 90, 40), (95, 95, 96, 96))))
    result = run(replace(ONE_POINT, drop_if_largest_below=100), answer, outputs=2)
    assert [mask.area for mask in result.masks] == [60 * 40 + 1]
    assert result.funnel.too_small == 1


def two_like_masks(*, first_iou: float, second_iou: float) -> tuple[Painted, Painted]:
    """A square with a far speck, and the square alone: other boxes, until the speck is gone."""
    return (
        paint(filled((10, 10, 40, 40), (90, 90, 92, 92)), predicted_iou=first_iou),
        paint(filled((10, 10, 40, 41)), predicted_iou=second_iou),
    )


@pytest.mark.parametrize(("first_iou", "second_iou"), [(0.99, 0.9), (0.9, 0.99)])
def test_of_masks_made_equal_by_the_clean_up_the_untouched_one_stays(first_iou: float, second_iou: float) -> None:
    """The third duplicate removal, which the paper does not mention: untouched first, whatever the predicted IoU."""
    answer = always(*two_like_masks(first_iou=first_iou, second_iou=second_iou))
    assert len(run(ONE_POINT, answer, outputs=2).masks) == 2
    result = run(replace(ONE_POINT, min_mask_region_area=100), answer, outputs=2)
    [mask] = result.masks
    assert mask.multimask_index == 1
    assert result.funnel.duplicate_after_clean == 1


def test_of_changed_masks_made_equal_the_one_preferred_before_stays() -> None:
    """Ties of the third duplicate removal keep the order of the second: no coin is tossed."""
    for best, ious in [(0, (0.99, 0.9)), (1, (0.9, 0.99))]:
        first, _ = two_like_masks(first_iou=ious[0], second_iou=0.9)
        other = paint(filled((10, 10, 41, 40), (60, 95, 62, 97)), predicted_iou=ious[1])
        [mask] = run(replace(ONE_POINT, min_mask_region_area=100), always(first, other), outputs=2).masks
        assert mask.multimask_index == best


def test_the_third_duplicate_removal_uses_the_larger_of_both_thresholds() -> None:
    """As in the released code: max(box_nms_thresh, crop_nms_thresh)."""
    answer = always(*two_like_masks(first_iou=0.99, second_iou=0.9))
    recipe = replace(ONE_POINT, min_mask_region_area=100, crop_nms_thresh=0.99)
    assert len(run(recipe, answer, outputs=2).masks) == 2


def test_a_changed_mask_gets_a_new_box_and_area_and_comes_after_untouched_ones() -> None:
    """In SA-1B's own files the changed masks stand together at the end."""
    changed, _ = two_like_masks(first_iou=0.99, second_iou=0)
    untouched = paint(filled((50, 10, 80, 30)), predicted_iou=0.9)
    recipe = replace(ONE_POINT, min_mask_region_area=100)
    first, second = run(recipe, always(changed, untouched), outputs=2).masks
    assert (first.multimask_index, second.multimask_index) == (1, 0)
    assert (second.bbox_xywh, second.area) == ((10.0, 10.0, 29.0, 29.0), 900)
    assert np.array_equal(decode_counts((SIDE, SIDE), second.counts), filled((10, 10, 40, 40)))


@pytest.mark.parametrize("rank", list(CropRank))
def test_across_crops_the_most_zoomed_in_duplicate_stays(rank: CropRank) -> None:
    """In both orders: the object is seen by the full image too, there with a better predicted IoU."""

    def painter(pixels_HW3: npt.NDArray[np.uint8], _point: tuple[int, int]) -> list[Painted]:
        red_HW = pixels_HW3[..., 0]
        return [paint(red_HW > 0, predicted_iou=0.99 if len(red_HW) == 200 else 0.9)]

    image_HW3 = np.zeros((200, 200, 3), dtype=np.uint8)
    image_HW3[30:60, 30:60] = 255
    recipe = Recipe(points_per_side=1, crop_n_layers=1, crop_rank=rank)
    [result] = generate_masks([image_HW3], PaintedSegmenter(painter, side=200), recipe)
    assert [mask.crop_layer for mask in result.masks] == [1]
    assert result.funnel.duplicate_across_crops == 1


@pytest.mark.parametrize(("rank", "winner"), [(CropRank.CROP_AREA, 0.9), (CropRank.LAYER, 0.99)])
def test_within_a_layer_the_better_predicted_iou_stays_and_not_the_smaller_crop(rank: CropRank, winner: float) -> None:
    """The released code ranks by crop area alone: a last crop that is a pixel narrower wins over better masks."""

    def painter(pixels_HW3: npt.NDArray[np.uint8], _point: tuple[int, int]) -> list[Painted]:
        red_HW = pixels_HW3[..., 0]
        return [paint(red_HW > 0, predicted_iou=0.9 if red_HW.shape[1] == 134 else 0.99)]

    image_HW3 = np.zeros((200, 201, 3), dtype=np.uint8)
    image_HW3[30:60, 95:110] = 255  # in the overlap of the left (135 wide) and the right crop (134)
    recipe = Recipe(points_per_side=1, crop_n_layers=1, crop_rank=rank)
    [result] = generate_masks([image_HW3], PaintedSegmenter(painter, side=201), recipe)
    assert [mask.predicted_iou for mask in result.masks] == [pytest.approx(winner)]


def test_a_mask_cut_off_by_its_crop_is_left_to_another_crop() -> None:
    """The edge rule: within 20 pixels of an inner crop edge, though not of the image's own."""
    recipe = Recipe(points_per_side=1, crop_n_layers=1)
    answer = run(recipe, lambda pixels_HW3, _point: [paint(np.ones(pixels_HW3.shape[:2], np.bool_))], side=200)
    assert [mask.crop_layer for mask in answer.masks] == [0]
    assert answer.funnel.at_crop_edge == 4
