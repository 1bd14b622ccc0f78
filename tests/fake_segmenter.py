"""A segmenter that costs microseconds, for the real generator and the device around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from model.point_decoder import Predictions
from pipeline.settings import Recipe, Settings
from pipeline.storage.store import Store
from pipeline.work.chunk import GenerateMasks
from pipeline.work.device import Device, fix_torch
from pipeline.work.loading import Weights

Image_HW3 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FakeCrop:
    pixels_HW3: Image_HW3

    @property
    def crop_hw(self) -> tuple[int, int]:
        return self.pixels_HW3.shape[0], self.pixels_HW3.shape[1]

    @property
    def resized_hw(self) -> tuple[int, int]:
        scale = FakeSegmenter.frame_side / max(self.crop_hw)
        return round(self.crop_hw[0] * scale), round(self.crop_hw[1] * scale)


class FakeSegmenter:
    """Three squares around every point; the score is the pixel under it, so that other pixels give other masks."""

    frame_side = 64
    outputs_per_prompt = 3
    points_at_once: int | None = None
    crops_at_once: int | None = None
    side = 16

    def spare_memory(self) -> None:
        pass

    def encode(self, crops_HW3: Sequence[Image_HW3]) -> list[FakeCrop]:
        return [FakeCrop(crop_HW3) for crop_HW3 in crops_HW3]

    def decode(self, crop: FakeCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float) -> Predictions:
        height, width = crop.crop_hw
        predicted_iou_PM = torch.zeros(len(points_xy_P2), self.outputs_per_prompt)
        logits_PMhw = torch.zeros(*predicted_iou_PM.shape, self.side, self.side)
        for index, (x, y) in enumerate(points_xy_P2):
            value = int(crop.pixels_HW3[min(int(y), height - 1), min(int(x), width - 1)].sum())
            for output in range(3):
                predicted_iou_PM[index, output] = 0.85 + value / 5000 + output / 1000
                logits_PMhw[index, output] = self._square(crop, x, y, radius=1 + output)
        return Predictions(predicted_iou_PM, predicted_iou_PM > pred_iou_thresh, logits_PMhw)

    def _square(self, crop: FakeCrop, x: float, y: float, *, radius: int) -> torch.Tensor:
        cell = self.side / max(crop.crop_hw)
        column, row = int(x * cell), int(y * cell)
        logits_hw = torch.full((self.side, self.side), -10.0)
        logits_hw[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = 10.0
        return logits_hw


def load_device(_store: Store, recipe: Recipe, *, threads: int, shared: Path | None = None) -> GenerateMasks:
    fix_torch(threads)
    return Device(FakeSegmenter(), recipe).generate


def segmenter_weights(_settings: Settings, _store: Store) -> Weights:
    """For a run whose workers have this segmenter, and all that comes after it."""
    return Weights(sha256="f" * 64, load=load_device)
