"""Figures that a part's columns give without looking at a mask's pixels, and how those of many parts add up.

The sums are of whole numbers, so the order in which parts are added changes nothing.
Legend: B bins, I images, N masks, X Y cells.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.records import Status
from pipeline.report.records import Bin, CentreMap, Failure, Histogram
from pipeline.settings import Recipe
from pipeline.storage.columns import ImageColumns, MaskColumns

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MASKS_PER_IMAGE_BINS = {"0-10": 10, "11-50": 50, "51-100": 100, "101-200": 200, ">200": 2**62}
"""Label -> the most masks that an image of this bin has. The paper's (arXiv:2304.02643, figure 6), whose first label
is <10; its 10 is in no bin."""
SIZE_EDGES = tuple(step / 50 for step in range(51))
CELLS = 64
"""Cells of the heat map along each side."""
SCORE_BINS = 50
MOST_PREDICTED_IOU = 1.1
EXAMPLES = 3
SHOWN_REASONS = 30


class Tally:
    """A histogram that grows."""

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self._count_B: Integers = np.zeros(len(edges) - 1, np.int64)
        self._below = self._above = 0

    def count(self, values: Floats) -> None:
        """NaN is in no bin, and nowhere beside them."""
        self._count_B += np.histogram(values, self.edges)[0]
        self._below += int((values < self.edges[0]).sum())
        self._above += int((values > self.edges[-1]).sum())

    def add(self, other: Tally) -> None:
        self._count_B += other._count_B
        self._below += other._below
        self._above += other._above

    def histogram(self) -> Histogram:
        return Histogram(self.edges, tuple(self._count_B.tolist()), self._below, self._above)


def score_edges(threshold: float, most: float) -> tuple[float, ...]:
    """`SCORE_BINS` equal bins from a multiple of 0.05 that is a little below the recipe's threshold, because scores are
    of float32 and one that is at the threshold may lie below it."""
    low = min(max(0.0, math.floor((threshold - 0.01) * 20) / 20), most - 0.05)
    return tuple(round(low + (most - low) * step / SCORE_BINS, 9) for step in range(SCORE_BINS + 1))


Place = tuple[int, int]
"""The number of a part among those that are committed, and a row of it."""


@dataclass
class _Reason:
    """Failures of one kind. `first` is the place and the words of the first one."""

    count: int
    first: tuple[Place, str]
    varied: bool
    examples: list[tuple[Place, str]]

    def add(self, other: _Reason) -> None:
        self.count += other.count
        self.varied |= other.varied or self.first[1] != other.first[1]
        self.first = min(self.first, other.first)
        self.examples = sorted(self.examples + other.examples)[:EXAMPLES]


@dataclass
class Figures:
    """Of the parts that were added so far."""

    recipe: Recipe
    images: int = 0
    masks: int = 0
    layers: Counter[int] = field(default_factory=Counter[int])
    outputs: Counter[int] = field(default_factory=Counter[int])
    sizes: Tally = field(default_factory=lambda: Tally(SIZE_EDGES))
    masks_per_image: Integers = field(default_factory=lambda: np.zeros(len(MASKS_PER_IMAGE_BINS), np.int64))
    centre_YX: Integers = field(default_factory=lambda: np.zeros((CELLS, CELLS), np.int64))
    reasons: dict[tuple[str, str], _Reason] = field(default_factory=dict[tuple[str, str], _Reason])

    def __post_init__(self) -> None:
        self.predicted_iou = Tally(score_edges(self.recipe.pred_iou_thresh, MOST_PREDICTED_IOU))
        self.stability = Tally(score_edges(self.recipe.stability_score_thresh, 1.0))

    def count(self, number: int, images: ImageColumns, masks: MaskColumns) -> None:
        """One part, which has this number among those that are committed."""
        is_ok_I = np.array(images.status_I) == str(Status.OK)
        self.images += int(is_ok_I.sum())
        self.masks += len(masks.area_N)
        self.layers.update(masks.crop_layer_N.tolist())
        self.outputs.update(masks.output_N.tolist())
        self.predicted_iou.count(masks.predicted_iou_N)
        self.stability.count(masks.stability_N)
        self.sizes.count(relative_sizes(images, masks))
        bins_I = np.searchsorted(list(MASKS_PER_IMAGE_BINS.values()), images.masks_I[is_ok_I])
        self.masks_per_image += np.bincount(bins_I, minlength=len(MASKS_PER_IMAGE_BINS))
        self.centre_YX += _centres(images, masks)
        for row in np.flatnonzero(~is_ok_I).tolist():
            self._fail((number, row), images)

    def _fail(self, place: Place, images: ImageColumns) -> None:
        name, text = images.file_name_I[place[1]], images.error_I[place[1]]
        reason = _Reason(1, (place, text), varied=False, examples=[(place, name)])
        self._add_reason((images.status_I[place[1]], _kind(text, images.source_I[place[1]], name)), reason)

    def _add_reason(self, key: tuple[str, str], reason: _Reason) -> None:
        if key in self.reasons:
            self.reasons[key].add(reason)
        else:
            self.reasons[key] = reason

    def add(self, other: Figures) -> None:
        self.images += other.images
        self.masks += other.masks
        self.layers.update(other.layers)
        self.outputs.update(other.outputs)
        for own, theirs in (
            (self.predicted_iou, other.predicted_iou),
            (self.stability, other.stability),
            (self.sizes, other.sizes),
        ):
            own.add(theirs)
        self.masks_per_image += other.masks_per_image
        self.centre_YX += other.centre_YX
        for key, reason in other.reasons.items():
            self._add_reason(key, reason)

    def bins(self) -> tuple[Bin, ...]:
        return tuple(Bin(*each) for each in zip(MASKS_PER_IMAGE_BINS, self.masks_per_image.tolist(), strict=True))

    def centres(self) -> CentreMap:
        return CentreMap(tuple(tuple(row) for row in self.centre_YX.tolist()))

    def failures(self) -> tuple[Failure, ...]:
        """The most frequent first, of equally frequent ones the first in the plan; rare ones together."""
        ordered = sorted(self.reasons.items(), key=lambda item: (-item[1].count, item[1].first[0]))
        shown = [
            Failure(
                status, kind if each.varied else each.first[1], each.count, tuple(name for _, name in each.examples)
            )
            for (status, kind), each in ordered[:SHOWN_REASONS]
        ]
        rest = ordered[SHOWN_REASONS:]
        if rest:
            count = sum(reason.count for _, reason in rest)
            shown.append(Failure("others", f"{len(rest):,} other reasons", count, ()))
        return tuple(shown)


def relative_sizes(images: ImageColumns, masks: MaskColumns) -> Floats:
    """(N,): sqrt(mask area / image area)."""
    pixels_N = np.repeat(images.width_I * images.height_I, images.masks_I)
    return np.sqrt(masks.area_N / np.maximum(pixels_N, 1))


def _centres(images: ImageColumns, masks: MaskColumns) -> Integers:
    """(Y, X) masks by the centre of their box. A pixel is a square: a box of width w at x goes from x to x + w + 1, and
    the whole image has its centre in the middle."""
    x_N = _cell(masks.box_xywh_N4[:, 0], masks.box_xywh_N4[:, 2], np.repeat(images.width_I, images.masks_I))
    y_N = _cell(masks.box_xywh_N4[:, 1], masks.box_xywh_N4[:, 3], np.repeat(images.height_I, images.masks_I))
    return np.bincount(y_N * CELLS + x_N, minlength=CELLS * CELLS).reshape(CELLS, CELLS)


def _cell(low_N: Floats, length_N: Floats, side_N: Integers) -> Integers:
    centre_N = (low_N + (length_N + 1) / 2) / np.maximum(side_N, 1)
    return np.clip(np.floor(centre_N * CELLS), 0, CELLS - 1).astype(np.int64)


def _kind(text: str, source: str, name: str) -> str:
    """The same for sentences that differ only in numbers and in what the image is called."""
    for own in sorted({source, name} - {""}, key=len, reverse=True):
        text = text.replace(own, "…")
    return re.sub(r"\d+(?:[.,]\d+)*", "N", text)
