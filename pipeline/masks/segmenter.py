"""The seam between the generator and a model: what a segmenter must be able to do, and how its logits leave the device.

torch ends here: what comes after is numpy.
Legend: P points, N predictions kept, h w low-resolution cells, S the model's square input side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from pipeline.masks.arrays import Floats, Points
from pipeline.masks.upscaling import Upscaling


class Predictions(Protocol):
    """The candidates of one batch of prompts whose predicted IoU passed the threshold, in (point, output) order."""

    @property
    def point_index_N(self) -> torch.Tensor:
        """int64, which prompt of the batch."""
        ...

    @property
    def mask_index_N(self) -> torch.Tensor:
        """int64, which of the model's outputs for that prompt, from 0."""
        ...

    @property
    def predicted_iou_N(self) -> torch.Tensor:
        """float32, never clipped."""
        ...

    @property
    def logits_Nhw(self) -> torch.Tensor:
        """float32 mask logits on the model's padded input square, at its low resolution; 0 is the boundary."""
        ...


class EncodedCrop(Protocol):
    """One crop after the image encoder; opaque but for its geometry."""

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Pixels of the crop as it was given."""
        ...

    @property
    def resized_hw(self) -> tuple[int, int]:
        """Pixels of the crop inside the model's input square (top left; the rest is padding)."""
        ...


Encoded = TypeVar("Encoded", bound=EncodedCrop)
"""A segmenter's own encoded crop."""


class Segmenter(Protocol[Encoded]):
    """Segment Anything, as far as the generator needs to know."""

    @property
    def input_side(self) -> int:
        """S: the side in pixels of the model's square input."""
        ...

    @property
    def outputs_per_prompt(self) -> int:
        """Masks predicted for one point (3 in Segment Anything)."""
        ...

    def encode(self, crops_HW3: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Encoded]:
        """Encode RGB crops of any sizes; one each, in order, independent of its neighbours."""
        ...

    def decode(self, crop: Encoded, points_xy_P2: Points, *, pred_iou_thresh: float) -> Predictions:
        """Prompt one encoded crop with single foreground points, given in the crop's own pixels.

        Only candidates with predicted IoU > pred_iou_thresh are returned; a segmenter may skip the work for the rest.
        """
        ...


def cells_on_host(logits_Nhw: torch.Tensor, segmenter: Segmenter[Encoded], crop: Encoded) -> tuple[Floats, Upscaling]:
    """(N, w, h) contiguous: the logits that pixels depend on, for compiled code; and how they become pixels."""
    h, w = logits_Nhw.shape[1:]
    upscaling = Upscaling.between(
        (h, w), input_side=segmenter.input_side, resized_hw=crop.resized_hw, crop_hw=crop.crop_hw
    )
    used_h, used_w = upscaling.used_hw
    return logits_Nhw[:, :used_h, :used_w].mT.contiguous().cpu().numpy(), upscaling
