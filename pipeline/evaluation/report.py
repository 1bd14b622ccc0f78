"""The figures of an evaluation: one small document, and the same as a table for a model card.

Owns names and layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.points import PointScores
from pipeline.evaluation.recall import AREA_RANGES, RecallCounts
from pipeline.settings import Recipe

GOOD_IOU = Recipe.pred_iou_thresh
"""The threshold of the recipe `sam`, above which an output should be kept."""


@dataclass(frozen=True, slots=True)
class PointFigures:
    """Means over the truths of one range of areas; NaN where there are none."""

    truths: int
    best_iou: float
    """Best of the outputs against the truth that was asked for."""
    top_iou: float
    """The output that the model ranks first, against the truth that was asked for."""
    top_nearest_iou: float
    """The same output against whichever truth under the point is nearest to it: a part is no wrong answer."""
    predicted_error: float
    """Mean absolute error of the predicted IoU over all outputs, each against the nearest truth under the point."""
    top_predicted_error: float
    """The same over the outputs that are ranked first."""
    predicted_bias: float
    """Predicted minus true IoU, over all outputs: above 0 is too sure."""
    good_share: float
    """Share of the outputs with a true IoU above GOOD_IOU."""
    confident_share: float
    """Share of the outputs with a predicted IoU above GOOD_IOU."""


def point_figures(scores: PointScores, area_range: str) -> PointFigures:
    """Of the truths in one of AREA_RANGES."""
    low, high = AREA_RANGES[area_range]
    chosen = scores.take((low <= scores.area_T) & (scores.area_T <= high))
    columns = {
        "best_iou": chosen.best_T,
        "top_iou": chosen.top_T,
        "top_nearest_iou": chosen.top_nearest_T,
        "predicted_error": chosen.error_TM(),
        "top_predicted_error": chosen.top_error_T(),
        "predicted_bias": chosen.predicted_TM - chosen.nearest_TM,
        "good_share": chosen.nearest_TM > GOOD_IOU,
        "confident_share": chosen.predicted_TM > GOOD_IOU,
    }
    means = {name: float(values.mean()) if len(values) else math.nan for name, values in columns.items()}
    return PointFigures(truths=len(chosen.area_T), **means)


def figures(points: Mapping[str, tuple[int, PointScores]], recall: RecallCounts) -> dict[str, Any]:
    """The document: points by their kind (with the number of images), recall, each by range of areas.

    A figure is null where no truth is behind it; recall is left out without images.
    """
    document: dict[str, Any] = {}
    for kind, (images, scores) in points.items():
        ranges = {name: _plain(asdict(point_figures(scores, name))) for name in AREA_RANGES}
        document[f"{kind} point"] = {"images": images, **ranges}
    if recall.images:
        ranges = {
            name: _plain({"truths": recall.truths(name), "average_recall": recall.average_recall(name)})
            for name in AREA_RANGES
        }
        document["AR@1000"] = {
            "images": recall.images,
            "masks_per_image": round(recall.masks / recall.images, 2),
            **_plain({f"recall at IoU {iou}": recall.recall_at(iou) for iou in (0.5, 0.75)}),
            **_plain({f"masks with a truth at IoU {iou}": recall.right_share(iou) for iou in (0.5, 0.75)}),
            **ranges,
        }
    return document


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Four digits, and null for NaN, which JSON lacks."""
    return {
        name: None if isinstance(value, float) and np.isnan(value) else round(value, 4)
        for name, value in values.items()
    }


_ROWS = {
    "best of the outputs, IoU": "best_iou",
    "ranked first, IoU": "top_iou",
    "ranked first, IoU with the nearest truth": "top_nearest_iou",
    "mean absolute error of predicted IoU": "predicted_error",
    "the same, ranked first": "top_predicted_error",
    "predicted minus true IoU": "predicted_bias",
    f"outputs with true IoU above {GOOD_IOU}": "good_share",
    f"outputs with predicted IoU above {GOOD_IOU}": "confident_share",
}


def markdown(document: Mapping[str, Any]) -> str:
    """The table for a card: one column per range of areas."""
    lines = ["| | " + " | ".join(AREA_RANGES) + " |", "|---" * (1 + len(AREA_RANGES)) + "|"]
    for kind in ("centre point", "random point"):
        if kind in document:
            told = document[kind]
            lines.append(_row(f"{kind}, {told['images']} images: truths", told, "truths"))
            lines += [_row(f"{kind}: {title}", told, name) for title, name in _ROWS.items()]
    if "AR@1000" in document:
        told = document["AR@1000"]
        title = f"masks, {told['images']} images, {told['masks_per_image']} masks each"
        lines += [_row(f"{title}: truths", told, "truths"), _row("masks: AR@1000", told, "average_recall")]
        for name in ("masks with a truth at IoU 0.5", "masks with a truth at IoU 0.75"):
            lines.append(f"| {name} | {_cell(told[name])}{' | ' * (len(AREA_RANGES) - 1)} |")
    return "\n".join(lines) + "\n"


def _row(title: str, by_range: Mapping[str, Any], name: str) -> str:
    values = [by_range[area_range][name] for area_range in AREA_RANGES]
    return f"| {title} | {' | '.join(map(_cell, values))} |"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
