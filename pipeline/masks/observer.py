"""Who watches the generator at work: told of every step with what went in and what stayed, and unable to change it.

Owns the words of these events. A run has nobody watching, and computes nothing for it. `pipeline/explain` makes
pictures of what it is told. Events do not name their image: an observed call is of one image.
Legend: P points of a batch, N candidates (of a batch: live ones), K those that stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from pipeline.masks.arrays import Flags, Integers, Points
from pipeline.masks.candidates import Candidates
from pipeline.masks.crops import Crop
from pipeline.masks.measure import Live
from pipeline.masks.rle import Rle
from pipeline.masks.segmenter import Predictions, Segmenter
from pipeline.masks.upscaling import Upscaling


class Among(StrEnum):
    """Which duplicates are removed."""

    IN_CROP = "in_crop"
    ACROSS_CROPS = "across_crops"
    AFTER_CLEAN = "after_clean"


@dataclass(frozen=True, slots=True)
class Prompted:
    """One batch of points of one crop, and what became of its candidates.

    encoded, segmenter  by which the crop can be prompted again: what is below the threshold was never predicted
    predictions         theirs, and how their logits become pixels
    live                what was measured of those above the threshold of predicted IoU; exact for stable ones
    box_xyxy_N4         of those, in the image's frame
    stable_N, edge_N    of those, as they were judged
    """

    crop: Crop
    encoded: Any
    segmenter: Segmenter[Any]
    points_xy_P2: Points
    predictions: Predictions
    upscaling: Upscaling
    live: Live
    box_xyxy_N4: Integers
    stable_N: Flags
    edge_N: Flags


class Observer(Protocol):
    """The steps of one image, in their order."""

    def prompted(self, batch: Prompted) -> None:
        """A batch of points was predicted and judged."""
        ...

    def deduplicated(
        self, among: Among, found: Candidates[Any], order_N: Integers, kept_K: Integers, iou_thresh: float
    ) -> None:
        """Duplicates were removed; the preferred one comes first in `order_N`. Positions are those in `found`."""
        ...

    def cleaned(self, before: Candidates[Rle], after: tuple[Rle, ...], large_N: Flags) -> None:
        """Masks without small holes and islands, and which of them are large enough to stay."""
        ...

    def sized(self, found: Candidates[Rle], large_N: Flags) -> None:
        """Which masks cover too much of the image; the others are the result."""
        ...


class Unobserved:
    """Nobody watches."""

    def prompted(self, batch: Prompted) -> None:
        return

    def deduplicated(
        self, among: Among, found: Candidates[Any], order_N: Integers, kept_K: Integers, iou_thresh: float
    ) -> None:
        return

    def cleaned(self, before: Candidates[Rle], after: tuple[Rle, ...], large_N: Flags) -> None:
        return

    def sized(self, found: Candidates[Rle], large_N: Flags) -> None:
        return


UNOBSERVED = Unobserved()
