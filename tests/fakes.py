"""Stand-ins for the seams: a segmenter whose every answer is painted by the test, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from model.point_decoder import Predictions

Crop_HW3 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Painted:
    """One answer of the segmenter: logits on the crop's own pixels, and how good it says they are."""

    logits_HW: npt.NDArray[np.float32]
    predicted_iou: float


@dataclass(frozen=True)
class PaintedCrop:
    pixels_HW3: Crop_HW3
    crop_hw: tuple[int, int]
    resized_hw: tuple[int, int]


Painter = Callable[[Crop_HW3, tuple[int, int]], Sequence[Painted]]
"""Crop pixels and the prompted pixel (x, y) in them -> one answer per output, always equally many."""


class PaintedSegmenter:
    """A `Segmenter` that answers with what `painter` returns. Nothing is resized, so masks come out pixel by pixel.

    `side` must be at least the longest side of any crop.
    """

    def __init__(self, painter: Painter, *, side: int, outputs_per_prompt: int = 1) -> None:
        self._painter = painter
        self._side = side
        self._outputs_per_prompt = outputs_per_prompt
        self.encoded_hw: list[tuple[int, int]] = []
        """Sizes of all crops so far."""
        self.largest_batch = 0
        """Most points in one decode call so far."""

    @property
    def frame_side(self) -> int:
        return self._side

    @property
    def outputs_per_prompt(self) -> int:
        return self._outputs_per_prompt

    @property
    def points_at_once(self) -> int | None:
        return None

    @property
    def crops_at_once(self) -> int | None:
        return None

    def spare_memory(self) -> None:
        pass

    def encode(self, crops_HW3: Sequence[Crop_HW3]) -> list[PaintedCrop]:
        sizes = [(crop_HW3.shape[0], crop_HW3.shape[1]) for crop_HW3 in crops_HW3]
        assert max(max(size) for size in sizes) <= self._side, "choose a larger side"
        self.encoded_hw += sizes
        return [PaintedCrop(crop_HW3, size, size) for crop_HW3, size in zip(crops_HW3, sizes, strict=True)]

    def decode(
        self, crop: PaintedCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float
    ) -> Predictions:
        self.largest_batch = max(self.largest_batch, len(points_xy_P2))
        answers = [self._painter(crop.pixels_HW3, (int(x), int(y))) for x, y in points_xy_P2]
        assert all(len(each) == self._outputs_per_prompt for each in answers)
        logits_PMSS = np.full((len(answers), self._outputs_per_prompt, self._side, self._side), -9, dtype=np.float32)
        height, width = crop.crop_hw
        for point, each in enumerate(answers):
            for output, answer in enumerate(each):
                logits_PMSS[point, output, :height, :width] = answer.logits_HW
        predicted_iou_PM = torch.tensor([[answer.predicted_iou for answer in each] for each in answers])
        return Predictions(predicted_iou_PM, predicted_iou_PM > pred_iou_thresh, torch.from_numpy(logits_PMSS))


def paint(mask_HW: npt.NDArray[np.bool_], *, predicted_iou: float = 1.0, logit: float = 9.0) -> Painted:
    """An answer that is `logit` inside the mask and -9 outside; a logit within the stability offset is unstable."""
    return Painted(np.where(mask_HW, np.float32(logit), np.float32(-9)), predicted_iou)


def always(*answers: Painted) -> Painter:
    """The same answers for every point."""
    return lambda _pixels, _point: answers


def same_colour(predicted_iou: Callable[[int], float] = lambda _colour: 1.0) -> Painter:
    """The pixels of the crop whose red is that of the prompted pixel; red 0 is background and has no mask."""

    def answer(pixels_HW3: Crop_HW3, point_xy: tuple[int, int]) -> list[Painted]:
        x, y = point_xy
        red_HW = pixels_HW3[..., 0]
        colour = int(red_HW[y, x])
        return [paint((red_HW == colour) & (colour > 0), predicted_iou=predicted_iou(colour))]

    return answer
