"""Images with masks of any kind -> scenes to train on, mixed with drawn ones.

Owns how overlapping masks become levels of labels. Does not know where images and masks are kept.
Legend: H W pixels, N masks, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from model.training.scenes import LEVELS, Scene, SceneSource

FREE_SHARE = 0.95
"""Of a mask's pixels, those that no larger mask of its level may have taken."""
TRIES = 20
"""Images that may be unusable, one after the other, before the training stops."""


class UnusableImagesError(ValueError):
    """What was given to train on cannot be used; the message says why."""


class LabelledSource(Protocol):
    """Images by number, each with its masks; pickles."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> tuple[npt.NDArray[np.uint8], Sequence[npt.NDArray[np.bool_]]] | None:
        """The image (H, W, 3) and its masks (H, W) each; None if it cannot be used."""
        ...


def layered(masks_HW: Sequence[npt.NDArray[np.bool_]], hw: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """(L, H, W): each mask, the largest first, on the first level where nearly all of it is free.

    So nested masks end on levels of their own, and masks side by side share one. What is nested deeper than there are
    levels is left out. A mask keeps what it has when a smaller one comes.
    """
    labels_LHW = np.zeros((LEVELS, *hw), np.uint16)
    areas = np.array([np.count_nonzero(mask_HW) for mask_HW in masks_HW], np.int64)
    for own, n in enumerate(np.argsort(-areas, kind="stable"), start=1):
        mask_HW = masks_HW[n]
        for labels_HW in labels_LHW:
            free_HW = mask_HW & (labels_HW == 0)
            if areas[n] and np.count_nonzero(free_HW) >= FREE_SHARE * areas[n]:
                labels_HW[free_HW] = own
                break
    return labels_LHW


@dataclass(frozen=True)
class MixedScenes:
    """Drawn scenes, of which some are replaced by labelled images. Which ones depends on seed and number alone."""

    seed: int
    drawn: SceneSource
    labelled: LabelledSource
    share: float
    side: int

    def scene(self, index: int) -> Scene:
        """See `SceneSource`.

        raises  UnusableImagesError if none is found in TRIES draws
        """
        rng = np.random.default_rng([self.seed, index, 11])
        if rng.random() >= self.share:
            return self.drawn.scene(index)
        for _ in range(TRIES):
            found = self.labelled.read(int(rng.integers(len(self.labelled))))
            if found is not None:
                return _shrunk(*found, side=self.side)
        raise UnusableImagesError(
            f"train.source: {TRIES} images in a row cannot be used, be it that they have no masks or cannot be read; "
            "the lines before this one say which"
        )


def _shrunk(rgb_HW3: npt.NDArray[np.uint8], masks_HW: Sequence[npt.NDArray[np.bool_]], *, side: int) -> Scene:
    height, width = rgb_HW3.shape[:2]
    scale = min(1.0, side / max(height, width))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    if (h, w) != (height, width):
        rgb_HW3 = np.asarray(cv2.resize(rgb_HW3, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
        nearest = cv2.INTER_NEAREST_EXACT
        masks_HW = [cv2.resize(mask.astype(np.uint8), (w, h), interpolation=nearest) > 0 for mask in masks_HW]
    return Scene(rgb_HW3, layered(masks_HW, (h, w)))
