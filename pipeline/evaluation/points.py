"""One point on each truth, and what a model answers: the masks of its outputs at full resolution and its own scores.

Owns which points are asked and what an answer is compared with. The masks are made by the generator's own code.
Legend: H W pixels, T truths (one point each), M outputs of a point.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.evaluation.truths import Floats, Truths
from pipeline.masks.overlap import pairwise_iou
from pipeline.masks.rle import Mask_HW, mask_pixels
from pipeline.masks.segmenter import Encoded, Segmenter, cells_on_host, upscaling_of
from pipeline.masks.trace import UntracedMask

POINTS_AT_ONCE = 64
"""Whose logits are in memory together; no answer depends on it."""


@dataclass(frozen=True, slots=True)
class PointScores:
    """What became of one point on each of T truths, of one image or of many.

    area_T          int64, pixels of the truth
    best_T          IoU of the truth with the output nearest to it
    top_T           IoU of the truth with the output that the model itself ranks first
    top_nearest_T   IoU of that output with whichever truth under the point is nearest to it
    predicted_TM    the model's own estimates, never clipped
    nearest_TM      IoU of every output with the truth under the point that is nearest to it
    """

    area_T: npt.NDArray[np.int64]
    best_T: Floats
    top_T: Floats
    top_nearest_T: Floats
    predicted_TM: Floats
    nearest_TM: Floats

    @staticmethod
    def concatenate(parts: list[PointScores]) -> PointScores:
        """All of them in order; at least one."""
        return PointScores(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(PointScores)))

    def take(self, chosen_T: npt.NDArray[np.bool_]) -> PointScores:
        """Those of some truths."""
        return PointScores(*(getattr(self, f.name)[chosen_T] for f in fields(PointScores)))

    def error_TM(self) -> Floats:
        """Of the predicted IoU of every output, against the truth under the point that is nearest to the output."""
        return np.abs(self.predicted_TM - self.nearest_TM)

    def top_error_T(self) -> Floats:
        """The same for the outputs that are ranked first."""
        return np.abs(self.predicted_TM.max(axis=1) - self.top_nearest_T)


def centre_points(truths: Truths) -> npt.NDArray[np.float64]:
    """(T, 2): of each truth the pixel (x, y) furthest from its boundary; the image's edge is a boundary."""
    return np.array([_centre(mask_pixels(counts, truths.hw)) for counts in truths.counts_T], np.float64).reshape(-1, 2)


def _centre(mask_HW: Mask_HW) -> tuple[int, int]:
    framed_HW = cv2.copyMakeBorder(mask_HW.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    distance_HW = cv2.distanceTransform(framed_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = divmod(int(distance_HW.argmax()), framed_HW.shape[1])
    return x - 1, y - 1


def random_points(truths: Truths, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(T, 2): of each truth one of its pixels (x, y), all equally likely."""
    points_T2 = np.zeros((len(truths), 2))
    for point_2, counts in zip(points_T2, truths.counts_T, strict=True):
        inside = np.flatnonzero(mask_pixels(counts, truths.hw))
        point_2[1], point_2[0] = divmod(int(rng.choice(inside)), truths.hw[1])
    return points_T2


def score_points(
    segmenter: Segmenter[Encoded], rgb_HW3: npt.NDArray[np.uint8], truths: Truths, *point_sets_T2: Floats
) -> list[PointScores]:
    """For each set of points, one on each truth: what the model answers. The image is encoded once, as one crop."""
    (encoded,) = segmenter.encode([rgb_HW3])
    batches = [slice(start, start + POINTS_AT_ONCE) for start in range(0, len(truths), POINTS_AT_ONCE)]
    scores: list[PointScores] = []
    for points_T2 in point_sets_T2:
        answers = [_answer(segmenter, encoded, points_T2[batch]) for batch in batches]
        counts = [packed for counts, _ in answers for packed in counts]
        predicted_TM = np.concatenate([predicted for _, predicted in answers])
        scores.append(_compare(counts, predicted_TM, truths, points_T2))
    return scores


def _answer(segmenter: Segmenter[Encoded], encoded: Encoded, points_P2: Floats) -> tuple[list[str], Floats]:
    """Packed masks of all outputs in (point, output) order, and the predicted IoU of each, (P, M)."""
    found = segmenter.decode(encoded, points_P2, pred_iou_thresh=-np.inf)
    upscaling = upscaling_of(found, segmenter, encoded)
    _, logits_Nwh = cells_on_host(found, upscaling)
    counts = [UntracedMask(logits_wh, upscaling).traced().packed() for logits_wh in logits_Nwh]
    return counts, found.predicted_iou_PM.double().cpu().numpy()


def _compare(
    counts: list[str], predicted_TM: Floats, truths: Truths, points_T2: npt.NDArray[np.float64]
) -> PointScores:
    T, M = predicted_TM.shape
    iou_TMT = pairwise_iou(counts, truths.counts_T, truths.hw).reshape(T, M, T)
    x_T, y_T = points_T2.astype(np.int64).T
    under_TT = np.array([mask_pixels(packed, truths.hw)[y_T, x_T] for packed in truths.counts_T]).reshape(T, T).T
    nearest_TM = np.where(under_TT[:, None], iou_TMT, 0.0).max(axis=2)
    own_TM = np.diagonal(iou_TMT, axis1=0, axis2=2).T
    top_T1 = predicted_TM.argmax(axis=1, keepdims=True)
    top_T, top_nearest_T = (np.take_along_axis(iou_TM, top_T1, axis=1)[:, 0] for iou_TM in (own_TM, nearest_TM))
    return PointScores(truths.area_T, own_TM.max(axis=1), top_T, top_nearest_T, predicted_TM, nearest_TM)
