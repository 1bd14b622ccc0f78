"""Which candidates are good enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.reference.official import segment_anything
from pipeline.masks.crops import Crop
from pipeline.masks.filters import at_crop_edge, covers_too_much, predicted_iou_cut, stability_scores
from pipeline.settings import Recipe
from tests.masks.oracle import count_above

amg = segment_anything.utils.amg


def test_stability_is_the_released_score() -> None:
    """The threshold of 0.95 means something only for this very definition."""
    torch.manual_seed(0)
    logits_NHW = torch.randn(9, 40, 30) * torch.tensor([0.2, 1, 20]).repeat(3)[:, None, None] + 0.5
    for offset in (1.0, 0.3, 3.0):
        released = amg.calculate_stability_score(logits_NHW, 0.0, offset)
        tight_N, loose_N = (count_above(logits_NHW, cut).numpy() for cut in (offset, -offset))
        ours_N = stability_scores(tight_N, loose_N)
        assert ours_N.dtype == np.float32
        assert np.array_equal(ours_N, released)


def test_stability_without_a_pixel_above_the_lower_cut_is_zero() -> None:
    """0/0 is NaN in the released code: dropped by any threshold, but never a number to write down."""
    for zeros in (np.zeros(1, np.int64), np.zeros(0, np.int64)):
        assert np.array_equal(stability_scores(zeros, zeros), zeros)


def test_a_predicted_iou_threshold_of_zero_lets_negative_scores_pass() -> None:
    """As in the released code, where 0 switches the filter off."""
    assert predicted_iou_cut(Recipe(pred_iou_thresh=0.0)) == -math.inf
    assert predicted_iou_cut(Recipe(pred_iou_thresh=0.88)) == 0.88


def test_edge_rule_is_the_released_one() -> None:
    """Includes boxes exactly at the tolerance and crops that touch the image's border."""
    torch.manual_seed(1)
    image_hw = (300, 400)
    for crop in [Crop((0, 0, 400, 300), 0), Crop((0, 0, 250, 200), 1), Crop((100, 50, 300, 300), 1)]:
        height, width = crop.hw
        low_N2 = torch.stack([torch.randint(0, width, (4000,)), torch.randint(0, height, (4000,))], dim=1)
        box_N4 = torch.cat([low_N2, low_N2 + torch.randint(0, 60, (4000, 2))], dim=1)
        released = amg.is_box_near_crop_edge(box_N4, list(crop.box_xyxy), [0, 0, 400, 300])
        in_image_N4 = box_N4.numpy() + np.tile(crop.box_xyxy[:2], 2)
        assert np.array_equal(at_crop_edge(in_image_N4, crop, image_hw=image_hw, tolerance=20.0), released)
        assert released.any() == (crop.layer > 0)


def test_edge_tolerance_can_be_set() -> None:
    """Fixed at 20 pixels in the released code, which is half of a small crop."""
    crop = Crop((100, 100, 200, 200), 1)
    box_14 = np.array([[105, 130, 160, 160]])
    near = [at_crop_edge(box_14, crop, image_hw=(300, 300), tolerance=pixels).item() for pixels in (4.0, 5.0)]
    assert near == [False, True]


@pytest.mark.parametrize(("height", "width"), [(20, 10), (60, 1), (100, 140), (1500, 2260)])
def test_the_area_rule_includes_exactly_the_fraction(height: int, width: int) -> None:
    """95 % or more, says the paper; 0.95 times the pixels would round to either side."""
    exact = height * width * 95 // 100
    area_N = np.array([exact - 1, exact, height * width])
    for max_fraction, expected in ((0.95, [False, True, True]), (None, [False] * 3)):
        dropped_N = covers_too_much(area_N, image_hw=(height, width), max_fraction=max_fraction)
        assert dropped_N.tolist() == expected
