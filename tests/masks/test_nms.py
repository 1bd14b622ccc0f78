"""Which duplicates stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.reference.official import batched_nms
from pipeline.masks.candidates import Candidates
from pipeline.masks.nms import best_first, box_nms, order_across_crops, untouched_first
from pipeline.masks.rle import Rle
from pipeline.settings import CropRank


def candidates(
    *, crops: list[tuple[int, int, int, int]], layers: list[int], predicted_iou: list[float]
) -> Candidates[Rle]:
    count = len(crops)
    return Candidates(
        box_xyxy_N4=np.zeros((count, 4), np.int64),
        predicted_iou_N=np.array(predicted_iou, np.float32),
        stability_N=np.ones(count, np.float32),
        point_xy_N2=np.zeros((count, 2)),
        mask_index_N=np.zeros(count, np.int64),
        crop_xyxy_N4=np.array(crops),
        layer_N=np.array(layers),
        masks=(Rle((1, 1), np.array([1])),) * count,
    )


@pytest.mark.parametrize("iou_thresh", [0.0, 0.1, 0.5, 0.7, 0.95, 1.0])
def test_what_stays_and_its_order_equal_a_pairwise_suppression(iou_thresh: float) -> None:
    """Small integer boxes: full of equal scores, equal boxes, boxes without area and IoUs on the threshold."""
    torch.manual_seed(3)
    for extent in (4, 12, 300):
        low_N2 = torch.randint(0, extent, (300, 2))
        boxes_N4 = torch.cat([low_N2, low_N2 + torch.randint(0, extent, (300, 2))], dim=1)
        scores_N = torch.randint(0, 9, (300,)) / 10
        released = batched_nms(boxes_N4.float(), scores_N, torch.zeros(300), iou_threshold=iou_thresh)
        kept = box_nms(boxes_N4.numpy(), best_first(scores_N.numpy()), iou_thresh=iou_thresh)
        assert np.array_equal(kept, released)


def test_an_iou_equal_to_the_threshold_is_no_duplicate() -> None:
    """Suppression is strict, as in torchvision."""
    boxes_24 = np.array([[0, 0, 10, 10], [0, 0, 10, 5]])
    order = np.array([0, 1])
    assert box_nms(boxes_24, order, iou_thresh=0.5).tolist() == [0, 1]
    assert box_nms(boxes_24, order, iou_thresh=0.49).tolist() == [0]


def test_boxes_without_area_all_stay() -> None:
    """One-pixel masks have x1 == x0: their IoU is 0/0, which is above nothing, and no warning is raised."""
    assert box_nms(np.array([[3, 3, 3, 3]] * 3), np.array([2, 0, 1]), iou_thresh=0.7).tolist() == [2, 0, 1]
    none = np.zeros(0, np.int64)
    assert box_nms(np.zeros((0, 4), np.int64), best_first(none), iou_thresh=0.7).tolist() == []


def test_equal_scores_keep_the_order_they_came_in() -> None:
    """Without a total order the result would depend on the sorting algorithm."""
    assert best_first(np.array([0.5, 0.9, 0.5, 0.9, 0.5], np.float32)).tolist() == [1, 3, 0, 2, 4]
    assert untouched_first(np.array([True, False, True, False])).tolist() == [1, 3, 0, 2]


def test_ranked_by_layer_a_pixel_less_of_crop_is_no_merit() -> None:
    """The paper ranks by zoom; the released 1/area lets right and bottom crops, a pixel smaller, win ties."""
    found = candidates(
        crops=[(0, 0, 400, 400), (0, 0, 220, 220), (180, 0, 400, 220), (181, 0, 400, 220), (0, 0, 120, 120)],
        layers=[0, 1, 1, 1, 2],
        predicted_iou=[0.99, 0.95, 0.97, 0.95, 0.9],
    )
    assert order_across_crops(found, CropRank.LAYER).tolist() == [4, 2, 1, 3, 0]
    assert order_across_crops(found, CropRank.CROP_AREA).tolist() == [4, 3, 1, 2, 0]
