"""The generator as a whole: independence, empty results, extreme sizes, accounting."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.reference.official import OfficialSegmenter
from pipeline.errors import ConfigError, ContractError
from pipeline.masks.generator import generate_masks
from pipeline.masks.merge import merge_crops
from pipeline.records import Funnel, ImageMasks
from pipeline.settings import CropRank, Recipe
from tests.fakes import Painted, PaintedCrop, PaintedSegmenter, always, paint, same_colour
from tests.masks.conftest import scene
from tests.masks.oracle import decode_counts
from tests.masks.remembering import asked_once

SA1B = Recipe(
    points_per_side=8,
    crop_n_layers=2,
    crop_n_points_downscale_factor=2,
    min_mask_region_area=20,
    drop_if_largest_below=20,
    crop_rank=CropRank.LAYER,
    max_area_fraction=0.95,
)


def tiles(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> npt.NDArray[np.uint8]:
    """An image whose red is 0 but for the XYXY boxes (exclusive), numbered from 1."""
    image_HW3 = np.zeros((height, width, 3), dtype=np.uint8)
    for colour, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        image_HW3[y0:y1, x0:x1, 0] = colour
    return image_HW3


def accounted(funnel: Funnel) -> int:
    return sum(getattr(funnel, name) for name in Funnel.__slots__ if name != "candidates")


def test_a_mask_says_where_it_is_and_how_it_was_found() -> None:
    """Every field of the record, once, by hand."""
    image_HW3 = tiles(40, 60, [(5, 7, 21, 19)])
    [result] = generate_masks([image_HW3], PaintedSegmenter(same_colour(), side=60), Recipe(points_per_side=6))
    [mask] = result.masks
    assert np.array_equal(decode_counts((40, 60), mask.counts), image_HW3[..., 0] == 1)
    assert mask.bbox_xywh == (5.0, 7.0, 15.0, 11.0)
    assert mask.area == 16 * 12
    assert (mask.predicted_iou, mask.stability_score) == (1.0, 1.0)
    assert mask.point_xy == (5.0, 10.0)
    assert mask.crop_box_xywh == (0.0, 0.0, 60.0, 40.0)
    assert (mask.crop_layer, mask.multimask_index) == (0, 0)


def test_a_mask_of_a_crop_is_given_in_the_images_frame() -> None:
    """Pixels, box, point and crop box move by the crop's corner, by different amounts in x and y."""
    image_HW3 = tiles(200, 240, [(150, 120, 170, 150)])
    segmenter = PaintedSegmenter(same_colour(), side=240)
    [result] = generate_masks([image_HW3], segmenter, Recipe(points_per_side=8, crop_n_layers=1))
    [mask] = result.masks
    assert mask.crop_layer == 1
    assert mask.crop_box_xywh == (86.0, 66.0, 154.0, 134.0)
    assert np.array_equal(decode_counts((200, 240), mask.counts), image_HW3[..., 0] == 1)
    assert mask.bbox_xywh == (150.0, 120.0, 19.0, 29.0)
    x, y = mask.point_xy
    assert image_HW3[int(y), int(x), 0] == 1


def test_each_output_of_a_prompt_keeps_its_number() -> None:
    """multimask_index tells whole from part, also after the first output was dropped."""
    masks_3HW = [np.zeros((50, 50), dtype=np.bool_) for _ in range(3)]
    for i, mask_HW in enumerate(masks_3HW):
        mask_HW[: 10 + 15 * i, : 10 + 15 * i] = True
    answers = [paint(mask_HW, predicted_iou=0.8 + 0.05 * i) for i, mask_HW in enumerate(masks_3HW)]
    segmenter = PaintedSegmenter(always(*answers), side=50, outputs_per_prompt=3)
    [result] = generate_masks([np.zeros((50, 50, 3), np.uint8)], segmenter, Recipe(points_per_side=1))
    assert [(mask.multimask_index, mask.area) for mask in result.masks] == [(2, 1600)]
    [result] = generate_masks(
        [np.zeros((50, 50, 3), np.uint8)], segmenter, Recipe(points_per_side=1, pred_iou_thresh=0.81)
    )
    assert [(mask.multimask_index, mask.area) for mask in result.masks] == [(2, 1600), (1, 625)]


def test_an_images_result_does_not_depend_on_its_neighbours(mini_sam: Any) -> None:
    """Retry and resume put an image into other company; its row must stay the same to the last byte."""
    segmenter = OfficialSegmenter(mini_sam)
    images = [scene(120, 160, seed=1), scene(31, 200, seed=2), scene(1, 1, seed=3), scene(150, 90, seed=4)]
    recipe = replace(SA1B, drop_if_largest_below=2, min_mask_region_area=2)  # random weights give masks full of specks
    with asked_once(mini_sam):
        alone = [generate_masks([image], segmenter, recipe)[0] for image in images]
        assert sum(len(result.masks) for result in alone) > 10
        assert generate_masks(images, segmenter, recipe) == alone
        assert generate_masks(images[::-1], segmenter, recipe) == alone[::-1]
        assert generate_masks([], segmenter, recipe) == []


def test_points_per_batch_changes_no_mask() -> None:
    """It is documented as memory and speed alone, and out-of-memory handling lowers it in mid-run."""
    image_HW3 = tiles(90, 120, [(5, 7, 41, 39), (30, 20, 100, 80)])

    def masks(points_per_batch: int) -> tuple[ImageMasks, int]:
        segmenter = PaintedSegmenter(same_colour(lambda colour: 1 - colour / 50), side=120)
        recipe = replace(SA1B, points_per_batch=points_per_batch)
        return generate_masks([image_HW3], segmenter, recipe)[0], segmenter.largest_batch

    one_by_one, largest = masks(1)
    assert largest == 1
    assert len(one_by_one.masks) == 2
    for points_per_batch in (3, 64, 10_000):
        together, largest = masks(points_per_batch)
        assert together == one_by_one
        assert largest == min(points_per_batch, 64)


def test_points_per_batch_changes_masks_of_a_network_by_rounding_only(mini_sam: Any) -> None:
    """Matrix products round by their shapes, so scores may move in their last digits; masks stay what they are."""
    segmenter = OfficialSegmenter(mini_sam)
    image_HW3 = scene(120, 160, seed=1)
    [few], [many] = (
        generate_masks([image_HW3], segmenter, Recipe(points_per_side=9, points_per_batch=size)) for size in (5, 81)
    )
    assert len(few.masks) == len(many.masks) > 5
    for one, other in zip(few.masks, many.masks, strict=True):
        assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-3)
        assert one.area == pytest.approx(other.area, rel=1e-2)
        assert one.point_xy == other.point_xy


def test_thresholds_are_strict_for_predicted_iou_and_inclusive_for_stability() -> None:
    """As released: > for one, >= for the other, and a logit of exactly 0 lies outside the mask."""
    logits_HW = np.full((10, 10), -9, dtype=np.float32)
    logits_HW[0, :] = 9
    logits_HW[1, :] = 0
    segmenter = PaintedSegmenter(always(Painted(logits_HW, predicted_iou=0.5)), side=10)
    black_HW3 = np.zeros((10, 10, 3), np.uint8)
    at_both = Recipe(points_per_side=1, pred_iou_thresh=0.49, stability_score_thresh=0.5)
    [result] = generate_masks([black_HW3], segmenter, at_both)
    assert [(mask.stability_score, mask.area) for mask in result.masks] == [(0.5, 10)]
    [result] = generate_masks([black_HW3], segmenter, replace(at_both, pred_iou_thresh=0.5))
    assert result.funnel.low_predicted_iou == 1
    [result] = generate_masks([black_HW3], segmenter, replace(at_both, stability_score_thresh=0.51))
    assert result.funnel.low_stability == 1


def test_a_mask_whose_stability_is_the_threshold_but_for_rounding_is_kept_whole() -> None:
    """Scores are float32, so that on large masks a ratio a hair below the threshold passes; counting must not stop
    at that hair, or the box ends where the counting did."""
    logits_HW = np.full((40, 93), -0.5, dtype=np.float32)  # within the offset: loose everywhere
    logits_HW[5:30, 3:20] = 9
    logits_HW[12, 85] = 0.5
    ratio = 25 * 17 / logits_HW.size
    threshold = float(np.float32(ratio))
    assert ratio < threshold
    recipe = Recipe(points_per_side=1, stability_score_thresh=threshold, crop_edge_tolerance=0)
    segmenter = PaintedSegmenter(always(Painted(logits_HW, 1.0)), side=93)
    [result] = generate_masks([np.zeros((40, 93, 3), np.uint8)], segmenter, recipe)
    [mask] = result.masks
    assert mask.area == 25 * 17 + 1
    assert mask.bbox_xywh == (3.0, 5.0, 82.0, 24.0)


def test_batches_of_the_encoder_hold_crops_of_one_image() -> None:
    """On a GPU the last bits depend on a batch's size, which must not depend on what else is asked."""
    calls: list[int] = []

    class Counting(PaintedSegmenter):
        def encode(self, crops_HW3: Any) -> Any:
            calls.append(len(crops_HW3))
            return super().encode(crops_HW3)

    generate_masks(
        [np.zeros((40, 40, 3), np.uint8)] * 3,
        Counting(same_colour(), side=40),
        Recipe(points_per_side=1, crop_n_layers=1),
    )
    assert calls == [5, 5, 5]


@pytest.mark.parametrize("at_once", [8, 4, 1])
def test_encodings_are_let_go_before_the_next_ones_are_made(at_once: int) -> None:
    """One of Segment Anything takes 27 MB; memory is short where halving their number helps."""
    made: list[weakref.ref[PaintedCrop]] = []

    class Watching(PaintedSegmenter):
        def encode(self, crops_HW3: Any) -> Any:
            assert [crop for crop in made if crop() is not None] == []
            encoded = super().encode(crops_HW3)
            made.extend(map(weakref.ref, encoded))
            return encoded

    recipe = Recipe(points_per_side=1, crop_n_layers=2)
    generate_masks(
        [np.zeros((40, 40, 3), np.uint8)], Watching(same_colour(), side=40), recipe, crops_per_encode=at_once
    )
    assert len(made) == 21


class There(np.ndarray[Any, Any]):
    """Pixels on a device."""


def test_an_image_goes_to_its_device_once_and_leaves_it_before_the_next_one_comes() -> None:
    """One of 268 million pixels takes 0.8 GB there. What a segmenter encodes are views of it."""
    known: list[weakref.ref[There]] = []
    encoded: list[str] = []

    class Device(PaintedSegmenter):
        def placed(self, image_HW3: Any) -> There:
            assert [image for image in known if image() is not None] == []
            there = image_HW3.copy().view(There)
            known.append(weakref.ref(there))
            return there

        def encode(self, crops_HW3: Any) -> Any:
            encoded.extend(type(crop_HW3).__name__ for crop_HW3 in crops_HW3)
            return super().encode(crops_HW3)

    images = [tiles(40, 40, [(5, 5, 20, 20)]), tiles(40, 40, [(5, 5, 30, 20)])]
    recipe = Recipe(points_per_side=2, crop_n_layers=1)
    found = generate_masks(images, Device(same_colour(), side=40), recipe, crops_per_encode=2)
    assert len(known) == 2
    assert encoded == ["There"] * 10
    assert found == generate_masks(images, PaintedSegmenter(same_colour(), side=40), recipe)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (replace(SA1B, pred_iou_thresh=1.5), "low_predicted_iou"),
        (replace(SA1B, stability_score_offset=10.0), "low_stability"),
        (replace(SA1B, drop_if_largest_below=10_000), "too_small"),
        (replace(SA1B, max_area_fraction=0.0), "too_large"),
    ],
)
def test_an_image_whose_masks_are_all_dropped_has_an_empty_result(recipe: Recipe, reason: str) -> None:
    """Zero masks is valid at every stage, and the funnel names the one where they went."""
    image_HW3 = tiles(90, 120, [(30, 20, 100, 80)])
    [result] = generate_masks([image_HW3], PaintedSegmenter(same_colour(), side=120), recipe)
    assert result.masks == ()
    assert getattr(result.funnel, reason) > 0
    assert accounted(result.funnel) == result.funnel.candidates == 64 + 4 * 16 + 16 * 4


@pytest.mark.parametrize("hw", [(1, 1), (1, 2), (3, 2), (1, 600), (600, 1), (2, 900), (7, 7)])
def test_tiny_and_extreme_shapes_give_masks_in_their_own_frame(mini_sam: Any, hw: tuple[int, int]) -> None:
    """More crops than pixels, and sides that the model's resize rounds to one row."""
    recipe = replace(SA1B, stability_score_thresh=0.0, pred_iou_thresh=0.0, crop_edge_tolerance=0.0)
    [result] = generate_masks([scene(*hw, seed=5)], OfficialSegmenter(mini_sam), recipe)
    assert accounted(result.funnel) == result.funnel.candidates > 0
    for mask in result.masks:
        mask_HW = decode_counts(hw, mask.counts)
        assert mask_HW.shape == hw
        assert mask_HW.sum() == mask.area
    painted = PaintedSegmenter(always(paint(np.ones((1, 1), np.bool_))), side=max(hw))
    [result] = generate_masks([np.ones((*hw, 3), np.uint8)], painted, Recipe(points_per_side=2))
    assert next((mask.area, mask.bbox_xywh) for mask in result.masks) == (
        hw[0] * hw[1],
        (0.0, 0.0, hw[1] - 1.0, hw[0] - 1.0),
    )


def test_every_candidate_is_counted_once() -> None:
    """The funnel is part of the result; here every field can be said beforehand."""
    image_HW3 = tiles(90, 120, [(0, 0, 60, 45), (60, 0, 120, 45), (0, 45, 60, 90), (60, 45, 64, 49)])
    predicted_iou = {0: 1.0, 1: 0.9, 2: 0.5, 3: 0.95, 4: 0.99}
    segmenter = PaintedSegmenter(same_colour(predicted_iou.__getitem__), side=120)
    [result] = generate_masks([image_HW3], segmenter, Recipe(points_per_side=4))
    # A quarter has 4 of the 16 points. Background points give empty masks: no pixel above the lower cut, unstable.
    assert result.funnel == Funnel(candidates=16, low_predicted_iou=4, low_stability=4, duplicate_in_crop=6, kept=2)


def test_a_candidate_without_an_outcome_is_a_bug_that_stops() -> None:
    """Counts that do not add up would make every report after them wrong."""
    with pytest.raises(ContractError, match="3 candidates, 2 accounted for"):
        merge_crops((4, 4), [], Funnel(candidates=3, low_stability=2), Recipe())


def test_a_recipe_with_an_empty_layer_is_refused() -> None:
    """By name of the settings, not by a division by zero."""
    recipe = Recipe(points_per_side=2, crop_n_layers=2, crop_n_points_downscale_factor=2)
    with pytest.raises(ConfigError, match="points_per_side=2"):
        generate_masks([np.zeros((9, 9, 3), np.uint8)], PaintedSegmenter(same_colour(), side=9), recipe)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.ones((4, 4, 3))],
)
def test_anything_but_rgb_bytes_is_refused(image: Any) -> None:
    """Alpha, gray or float pixels would be segmented as something else without a word."""
    with pytest.raises(ContractError, match="must be"):
        generate_masks([image], PaintedSegmenter(same_colour(), side=9), Recipe())
