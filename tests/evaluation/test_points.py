"""Points and scores of points, on a segmenter whose answers are painted."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from pipeline.evaluation.points import PointScores, centre_points, random_points, score_points
from pipeline.evaluation.recall import AREA_RANGES, count_recall
from pipeline.evaluation.report import figures, markdown, point_figures
from pipeline.evaluation.truths import Truths
from pipeline.masks.rle import pack_pixels
from tests.fakes import PaintedSegmenter, paint

SIDE = 64
WHOLE_HW = np.zeros((SIDE, SIDE), np.bool_)
WHOLE_HW[:40, :40] = True
PART_HW = np.zeros((SIDE, SIDE), np.bool_)
PART_HW[10:30, 10:30] = True


@cache
def both_truths() -> Truths:
    """The whole and the part. Packed where they are asked for, and not wherever tests are collected."""
    return Truths.of([pack_pixels(WHOLE_HW), pack_pixels(PART_HW)], (SIDE, SIDE))


def test_the_centre_is_inside_and_furthest_from_the_boundary() -> None:
    """Of a ring the mean of the pixels is outside; of what the image's edge cuts, the edge is a boundary as well."""
    ring_HW = np.zeros((SIDE, SIDE), np.bool_)
    ring_HW[4:40, 4:60] = True
    ring_HW[10:34, 10:44] = False
    cut_HW = np.zeros((SIDE, SIDE), np.bool_)
    cut_HW[:20, :9] = True
    truths = Truths.of([pack_pixels(ring_HW), pack_pixels(cut_HW)], (SIDE, SIDE))
    (ring_x, ring_y), (cut_x, cut_y) = centre_points(truths)
    assert ring_HW[int(ring_y), int(ring_x)]
    assert 44 + 6 < ring_x < 60 - 6
    assert cut_x == 4
    assert 4 <= cut_y <= 15


def test_random_points_lie_on_their_truths_all_over_them() -> None:
    """A point beside its truth asks for something else."""
    points = np.array([random_points(both_truths(), np.random.default_rng(seed)) for seed in range(60)])
    for index, mask_HW in enumerate((WHOLE_HW, PART_HW)):
        x, y = points[:, index].astype(int).T
        assert mask_HW[y, x].all()
    assert len(np.unique(points[:, 0], axis=0)) > 50


def test_scores_of_answers_that_are_known() -> None:
    """The part is answered rightly but ranked second; the first-ranked whole is right by what is under the point.

    Outputs: the whole (says 0.9), the part (says 0.8), half of the whole (says 0.1).
    """
    half_HW = WHOLE_HW.copy()
    half_HW[20:] = False
    answers = [paint(mask, predicted_iou=said) for mask, said in ((WHOLE_HW, 0.9), (PART_HW, 0.8), (half_HW, 0.1))]
    segmenter = PaintedSegmenter(lambda _pixels, _point: answers, side=SIDE, outputs_per_prompt=3)
    rgb_HW3 = np.zeros((SIDE, SIDE, 3), np.uint8)
    corner_T2 = np.array([[2.0, 2.0], [20.0, 20.0]])
    (scores,) = score_points(segmenter, rgb_HW3, both_truths(), corner_T2)
    assert scores.best_T.tolist() == [1.0, 1.0]
    assert scores.top_T.tolist() == [1.0, pytest.approx(400 / 1600)]
    assert scores.top_nearest_T.tolist() == [1.0, 1.0]
    part_in_whole = 400 / 1600
    assert scores.nearest_TM.tolist() == [[1.0, pytest.approx(part_in_whole), 0.5], [1.0, 1.0, 0.5]]
    assert scores.error_TM() == pytest.approx(np.array([[0.1, 0.8 - part_in_whole, 0.4], [0.1, 0.2, 0.4]]))
    assert scores.top_error_T() == pytest.approx([0.1, 0.1])
    found = point_figures(scores, "small")
    assert found.truths == 1
    assert found.top_iou == pytest.approx(part_in_whole)
    assert found.confident_share == pytest.approx(1 / 3)


def test_the_document_has_no_nan_and_the_table_a_column_for_every_range() -> None:
    """NaN is no JSON; a range without truths is null there and a dash in the table."""
    none_T, none_TM = np.zeros(0), np.zeros((0, 3))
    empty = PointScores(none_T.astype(np.int64), none_T, none_T, none_T, none_TM, none_TM)
    document = figures({"centre": (1, empty)}, count_recall([], np.zeros(0), both_truths()))
    told = json.loads(json.dumps(document, allow_nan=False))
    assert told["centre point"]["all"]["best_iou"] is None
    assert told["AR@1000"]["large"] == {"truths": 0, "average_recall": None}
    table = markdown(document)
    assert all(line.count("|") == len(AREA_RANGES) + 2 for line in table.splitlines())
    assert "| - |" in table
