"""What is explained is what a run does: the same masks, the same funnel, examples on the right side of thresholds."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model.load import load_segmenter
from pipeline.explain.explanation import explain
from pipeline.explain.page import page
from pipeline.explain.records import Explanation, Role
from pipeline.explain.words import WORDS
from pipeline.masks.generator import generate_masks
from pipeline.masks.nms import box_nms, winners
from pipeline.masks.observer import UNOBSERVED, Observer
from pipeline.records import Funnel
from pipeline.settings import CropRank, Recipe
from tests.fakes import PaintedSegmenter, always, paint
from tests.masks.conftest import scene

RECIPE = Recipe(
    points_per_side=8,
    crop_n_layers=1,
    crop_n_points_downscale_factor=2,
    pred_iou_thresh=0.42,
    stability_score_thresh=0.7,
    min_mask_region_area=100,
    drop_if_largest_below=100,
    crop_rank=CropRank.LAYER,
    max_area_fraction=0.5,
)
IMAGE = scene(150, 200, seed=3)


@cache
def tiny() -> Any:
    return load_segmenter(name="tiny", checkpoint=None, device="cpu")


@cache
def explained() -> Explanation:
    return explain(IMAGE, tiny(), RECIPE)


def test_the_masks_and_the_funnel_are_those_of_a_run() -> None:
    """An explanation of other masks than those in the output would explain nothing."""
    [result] = generate_masks([IMAGE], tiny(), RECIPE)
    assert explained().result == result
    assert result.masks
    removed = {step.key: step.removed for step in explained().steps}
    funnel = asdict(result.funnel)
    assert removed == {name: count for name, count in funnel.items() if name not in ("candidates", "kept")}
    assert explained().steps[-1].left == result.funnel.kept
    assert sum(count > 0 for count in removed.values()) >= 5, removed


def test_every_step_of_the_funnel_has_words_and_settings() -> None:
    """A new step, or a renamed setting, must not be missing on the page."""
    assert set(WORDS) == {name for name in Funnel.__slots__ if name not in ("candidates", "kept")}
    recipe = asdict(Recipe())
    assert all(name in recipe for words in WORDS.values() for name in words.settings)
    named = dict(setting for step in explained().steps for setting in step.settings)
    assert named["recipe.pred_iou_thresh"] == "0.42"
    assert named["recipe.crop_rank"] == "layer"


def test_the_scores_of_all_candidates_are_there_and_the_threshold_cuts_them_as_the_run_did() -> None:
    """A run never sees the scores below its threshold; who sets one needs them."""
    steps = {step.key: step for step in explained().steps}
    low, unstable = steps["low_predicted_iou"], steps["low_stability"]
    for step, came in ((low, explained().result.funnel.candidates), (unstable, low.left)):
        assert step.scores is not None
        assert len(step.scores.values_N) == came
        assert step.scores.above(step.scores.threshold) == step.left


def test_examples_are_the_nearest_to_their_threshold_on_the_right_side() -> None:
    """They show what a little more or less would change."""
    [low] = [step for step in explained().steps if step.key == "low_predicted_iou"]
    assert low.scores is not None
    values_N: npt.NDArray[np.float64] = np.sort(low.scores.values_N)
    [(_, removed), (_, kept)] = low.groups
    told = [[float(re.findall(r"[\d.]+$", each.said)[0]) for each in examples] for examples in (removed, kept)]
    assert told[0] == pytest.approx(values_N[values_N <= 0.42][::-1][:6].tolist(), abs=6e-4)
    assert told[1] == pytest.approx(values_N[values_N > 0.42][:6].tolist(), abs=6e-4)
    assert all(each.shapes[0].role is Role.REMOVED for each in removed)


def test_as_few_pictures_are_kept_however_many_candidates_there_are() -> None:
    """An image of `sa1b` has nine thousand."""
    assert all(len(examples) <= 6 for step in explained().steps for _, examples in step.groups)


def test_the_winner_of_a_removed_box_is_the_best_one_that_overlaps_it_more_than_the_threshold() -> None:
    """A is best; B falls to A; C overlaps B alone, which is gone, so C stays and D falls to C."""
    boxes_N4 = np.array([[0, 0, 10, 10], [0, 2, 10, 12], [0, 5, 10, 15], [0, 6, 10, 16]])
    order_N = np.array([0, 1, 2, 3])
    kept_K = box_nms(boxes_N4, order_N, iou_thresh=0.5)
    assert kept_K.tolist() == [0, 2]
    beaten = winners(boxes_N4, order_N, kept_K, iou_thresh=0.5)
    assert {loser: winner for loser, (winner, _) in beaten.items()} == {1: 0, 3: 2}
    assert beaten[1][1] == pytest.approx(80 / 120)
    reversed_K = box_nms(boxes_N4, order_N[::-1], iou_thresh=0.5)
    assert set(winners(boxes_N4, order_N[::-1], reversed_K, iou_thresh=0.5)) == set(range(4)) - set(reversed_K.tolist())


def test_a_clean_up_is_shown_as_what_was_filled_removed_and_kept() -> None:
    """A square with a hole of 9 pixels and an island of 4."""
    mask_HW = np.zeros((64, 64), np.bool_)
    mask_HW[10:40, 10:40] = True
    mask_HW[20:23, 20:23] = False
    mask_HW[50:52, 50:52] = True
    segmenter = PaintedSegmenter(always(paint(mask_HW)), side=64)
    recipe = Recipe(points_per_side=2, min_mask_region_area=20)
    steps = {step.key: step for step in explain(np.zeros((64, 64, 3), np.uint8), segmenter, recipe).steps}
    [(heading, [example])] = steps["too_small"].groups
    assert heading.startswith("Masks that it changed (1 in all)")
    before, after, both = (shape.rle for shape in example.shapes)
    assert (before.area, after.area, both.area) == (900 - 9 + 4, 900, 900 - 9)
    assert example.said == "895 to 900 px"
    assert [shape.role for shape in example.shapes] == [Role.REMOVED, Role.ADDED, Role.KEPT]


def test_an_image_without_any_mask_is_explained_too() -> None:
    """Whoever finds nothing needs the explanation most."""
    segmenter = PaintedSegmenter(always(paint(np.zeros((16, 16), np.bool_), predicted_iou=0.3)), side=16)
    image_HW3 = np.zeros((16, 16, 3), np.uint8)
    explanation = explain(image_HW3, segmenter, Recipe(points_per_side=2, nodata=(255, 0, 7)))
    assert {("recipe.use_m2m", "false"), ("recipe.roi", "null"), ("recipe.nodata", "[255,0,7]")} <= {
        *explanation.settings
    }, "settings as they are typed"
    assert [step.left for step in explanation.steps] == [0] * len(WORDS)
    assert "4 removed, 0 left" in page(explanation, image_HW3, name="black.png", model="painted")


def test_thresholds_that_nothing_can_miss_and_that_nothing_can_reach_are_explained() -> None:
    """A box threshold of 1 or a predicted IoU of 2 has no room beside it in a histogram."""
    loose = replace(RECIPE, pred_iou_thresh=-1.0, stability_score_thresh=0.0, box_nms_thresh=1.0, crop_n_layers=0)
    for recipe in (loose, replace(RECIPE, pred_iou_thresh=2.0, crop_n_layers=0)):
        explanation = explain(IMAGE, tiny(), recipe)
        assert page(explanation, IMAGE, name="scene.png", model="tiny").count("<h2") == len(WORDS) + 2


def test_nobody_watching_is_an_observer_too() -> None:
    """The generator has one path, observed or not."""
    observer: Observer = UNOBSERVED
    assert generate_masks([IMAGE], tiny(), RECIPE, observer=observer) == [explained().result]
