"""AR@1000 against an example worked by hand and against COCO's own evaluation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model.training.scenes import draw_scene
from pipeline.errors import ContractError
from pipeline.evaluation.recall import AREA_RANGES, count_recall, match_greedily
from pipeline.evaluation.truths import Truths
from pipeline.masks.overlap import pairwise_iou
from pipeline.masks.rle import mask_pixels, pack_pixels

SIDE = 128


def box(x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.bool_]:
    mask_HW = np.zeros((SIDE, SIDE), np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return mask_HW


def truths_of(masks: Sequence[npt.NDArray[np.bool_]]) -> Truths:
    return Truths.of([pack_pixels(mask_HW) for mask_HW in masks], (SIDE, SIDE))


def test_recall_of_an_example_worked_by_hand() -> None:
    """Three truths: a square of 10 found exactly, one of 40 with IoU 30/40, a large one with IoU 1/2.

    The square of 10 is found at all ten thresholds; the one of 40 at 0.50 to 0.75, six of ten; the large one at 0.50
    alone. Its second mask, just as good, finds nothing: masks and truths go one to one. So AR is (10 + 6 + 1) / 30.
    """
    truths = truths_of([box(0, 0, 10, 10), box(20, 0, 60, 40), box(0, 40, 128, 128)])
    masks = [box(0, 40, 128, 84), box(0, 84, 128, 128), box(20, 0, 60, 30), box(0, 0, 10, 10)]
    found = count_recall([pack_pixels(mask_HW) for mask_HW in masks], np.array([0.9, 0.8, 0.7, 0.6]), truths)
    assert found.average_recall("all") == pytest.approx(17 / 30)
    assert [found.truths(name) for name in AREA_RANGES] == [3, 1, 1, 1, 3]
    assert found.average_recall("small") == pytest.approx(1.0)
    assert found.average_recall("medium") == pytest.approx(0.6)
    assert found.average_recall("large") == pytest.approx(0.1)
    assert found.recall_at(0.5) == 1.0
    assert found.recall_at(0.75) == pytest.approx(2 / 3)


def test_a_mask_is_right_if_any_truth_is_near_enough() -> None:
    """The four masks of the example: both halves of the large truth are right at 0.5 and wrong at 0.75."""
    truths = truths_of([box(0, 0, 10, 10), box(20, 0, 60, 40), box(0, 40, 128, 128)])
    masks = [box(0, 40, 128, 84), box(0, 84, 128, 128), box(20, 0, 60, 30), box(0, 0, 10, 10), box(100, 0, 128, 20)]
    one = count_recall([pack_pixels(mask_HW) for mask_HW in masks], np.array([0.9, 0.8, 0.7, 0.6, 0.5]), truths)
    both = one + count_recall([], np.zeros(0), truths)
    assert both.right_share(0.5) == 4 / 5
    assert both.right_share(0.75) == 2 / 5
    assert np.isnan(count_recall([], np.zeros(0), truths).right_share(0.5))


def test_the_mask_with_the_higher_score_chooses_first() -> None:
    """Greedy means that a truth which a better-scored mask took is gone, even for one that fits it better."""
    iou_DT = np.array([[0.7, 0.6], [0.9, 0.2]])
    assert match_greedily(iou_DT, 0.5).tolist() == [True, False]
    assert match_greedily(iou_DT[::-1], 0.5).tolist() == [True, True]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' own call of numpy
def test_recall_is_that_of_coco_without_classes() -> None:
    """pycocotools' COCOeval with useCats=0 and 1000 masks an image is what others report; equal to the last digit."""
    rng = np.random.default_rng(4)
    scenes = [Truths.of_labels(draw_scene(8, number, size_hw=(SIDE, SIDE)).labels_3HW) for number in range(4)]
    answers = [_disturbed(truths, rng) for truths in scenes]
    ours = reduce(add, (count_recall(*answer, truths) for answer, truths in zip(answers, scenes, strict=True)))
    recall_IA = _recall_of_coco(scenes, answers)
    for column, name in enumerate(("all", "small", "medium", "large")):
        r = list(AREA_RANGES).index(name)
        assert ours.truths_R[r] > 0
        assert (ours.matched_RI[r] / ours.truths_R[r]).tolist() == pytest.approx(recall_IA[:, column].tolist())
    assert 0.1 < ours.average_recall("all") < 0.9


def _disturbed(truths: Truths, rng: np.random.Generator) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Each truth shifted by some pixels, twice, with scores of which several are equal."""
    masks = [mask_pixels(counts, truths.hw) for counts in truths.counts_T for _ in range(2)]
    moved = [np.roll(mask_HW, rng.integers(-2, 3, 2), axis=(0, 1)) for mask_HW in masks]
    return [pack_pixels(mask_HW) for mask_HW in moved], rng.integers(0, 12, len(moved)) / 10


def _recall_of_coco(
    scenes: Sequence[Truths], answers: Sequence[tuple[list[str], npt.NDArray[np.float64]]]
) -> npt.NDArray[np.float64]:
    """Recall by IoU threshold and by COCO's range of areas."""
    dataset: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": [{"id": 1}]}
    results: list[dict[str, Any]] = []
    for image_id, (truths, (counts, scores)) in enumerate(zip(scenes, answers, strict=True), start=1):
        image = {"image_id": image_id, "category_id": 1}
        dataset["images"].append({"id": image_id, "height": truths.hw[0], "width": truths.hw[1]})
        for packed, area in zip(truths.counts_T, truths.area_T.tolist(), strict=True):
            mask = {"segmentation": {"size": list(truths.hw), "counts": packed}, "area": area, "iscrowd": 0}
            dataset["annotations"].append({"id": len(dataset["annotations"]) + 1, **image, **mask})
        for packed, score in zip(counts, scores.tolist(), strict=True):
            segmentation = {"size": list(truths.hw), "counts": packed}
            results.append({**image, "segmentation": segmentation, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = dataset
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = [1, 10, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["recall"])[:, 0, :, -1]


def test_an_image_without_masks_or_without_truths_counts_as_such() -> None:
    """Nothing found is recall 0; nothing to find is no recall at all."""
    nothing = count_recall([], np.zeros(0), truths_of([box(0, 0, 10, 10)]))
    assert nothing.average_recall("all") == 0
    pointless = count_recall([pack_pixels(box(0, 0, 10, 10))], np.ones(1), truths_of([]))
    assert np.isnan(pointless.average_recall("all"))
    assert (nothing + pointless).average_recall("all") == 0


def test_packed_masks_come_back_as_they_were_and_equal_ones_are_one_truth() -> None:
    """A part that covers its whole is one thing to find; a mask of another frame is no truth of this image."""
    masks = [box(0, 0, 10, 10), box(0, 0, SIDE, SIDE), box(5, 7, 9, SIDE), box(0, 0, 10, 10), box(0, 0, 0, 0)]
    for mask_HW in masks:
        assert np.array_equal(mask_pixels(pack_pixels(mask_HW), (SIDE, SIDE)), mask_HW)
    truths = truths_of(masks)
    assert truths.area_T.tolist() == [100, SIDE * SIDE, 4 * (SIDE - 7)]
    expected = (masks[0] & masks[2]).sum() / (masks[0] | masks[2]).sum()
    assert pairwise_iou(truths.counts_T, truths.counts_T, truths.hw)[0, 2] == pytest.approx(expected)
    with pytest.raises(ContractError, match="pixels"):
        Truths.of(truths.counts_T, (SIDE, SIDE + 1))
