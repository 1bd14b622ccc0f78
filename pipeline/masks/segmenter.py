"""The seam between the generator and a model: what a segmenter must be able to do, and how its logits leave the device.

torch ends here: what comes after is numpy.
Legend: P points, M outputs a point, S = P M slots, N live ones, h w low-resolution cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import ContractError
from pipeline.masks.arrays import Floats, Integers, Points
from pipeline.masks.upscaling import Upscaling


class Predictions(Protocol):
    """Every mask of a batch of prompts, in its place whether it is live or not: slot p M + m is output m of point p."""

    @property
    def predicted_iou_PM(self) -> torch.Tensor:
        """float32, never clipped."""
        ...

    @property
    def live_PM(self) -> torch.Tensor:
        """bool, whether the predicted IoU is above the threshold."""
        ...

    @property
    def logits_PMhw(self) -> torch.Tensor:
        """float32 mask logits on the segmenter's frame, at its low resolution; 0 is the boundary.

        Those of masks that are not live may be anything.
        """
        ...


class EncodedCrop(Protocol):
    """One crop after the image encoder; opaque but for its geometry."""

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Pixels of the crop as it was given."""
        ...

    @property
    def resized_hw(self) -> tuple[int, int]:
        """Pixels of the crop inside the frame (top left; the rest is padding)."""
        ...


Encoded = TypeVar("Encoded", bound=EncodedCrop)
"""A segmenter's own encoded crop."""


class Segmenter(Protocol[Encoded]):
    """Segment Anything, as far as the generator needs to know."""

    @property
    def frame_side(self) -> int:
        """The side in pixels of the square to which low-resolution masks are enlarged first: in SAM 1 the input
        square, in SAM 2 that of the masks themselves."""
        ...

    @property
    def outputs_per_prompt(self) -> int:
        """Masks predicted for one point (3 in Segment Anything)."""
        ...

    @property
    def points_at_once(self) -> int | None:
        """Points of a crop to ask for in one call, if there are as many, whatever the recipe says; None: as it says."""
        ...

    @property
    def crops_at_once(self) -> int | None:
        """Crops of an image to encode in one call, if there are as many; None: as the caller likes."""
        ...

    def spare_memory(self) -> None:
        """Give back the memory of what only saves time, and do not take it again."""
        ...

    def encode(self, crops_HW3: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Encoded]:
        """Encode RGB crops of any sizes; one each, in order, independent of its neighbours."""
        ...

    def decode(self, crop: Encoded, points_xy_P2: Points, *, pred_iou_thresh: float) -> Predictions:
        """Prompt one encoded crop with single foreground points, given in the crop's own pixels.

        A segmenter may skip the masks of candidates whose predicted IoU is not > pred_iou_thresh.
        """
        ...


@runtime_checkable
class Refining(Protocol):
    """A `Segmenter` that can also give each mask back to its model."""

    def decode_refined(self, crop: Any, points_xy_P2: Points, *, pred_iou_thresh: float) -> Predictions:
        """As `decode`; but each of a point's masks is a prompt beside it, and the answer to both takes its place."""
        ...


@runtime_checkable
class Placing(Protocol):
    """A `Segmenter` whose device an image can be taken to whole, so that its crops need not be sent one by one."""

    def placed(self, image_HW3: npt.NDArray[np.uint8]) -> Any:
        """The image there. Slices of it, `[y0:y1, x0:x1]`, are crops that `encode` takes as it takes arrays."""
        ...


def placed(segmenter: Segmenter[Encoded], image_HW3: npt.NDArray[np.uint8]) -> Any:
    """The image where its crops are to be cut; the image itself for a segmenter that does not care."""
    return segmenter.placed(image_HW3) if isinstance(segmenter, Placing) else image_HW3


def ask(
    segmenter: Segmenter[Encoded], crop: Encoded, points_xy_P2: Points, *, pred_iou_thresh: float, refine: bool
) -> Predictions:
    """The answers to some points of a crop, as they come or refined.

    raises  ContractError if this segmenter does not refine
    """
    if not refine:
        return segmenter.decode(crop, points_xy_P2, pred_iou_thresh=pred_iou_thresh)
    if not isinstance(segmenter, Refining):
        raise ContractError(f"{type(segmenter).__name__} does not refine masks, which use_m2m asks for")
    return segmenter.decode_refined(crop, points_xy_P2, pred_iou_thresh=pred_iou_thresh)


def upscaling_of(predictions: Predictions, segmenter: Segmenter[Encoded], crop: Encoded) -> Upscaling:
    """How those logits become the crop's pixels."""
    h, w = predictions.logits_PMhw.shape[2:]
    return Upscaling.between((h, w), input_side=segmenter.frame_side, resized_hw=crop.resized_hw, crop_hw=crop.crop_hw)


def cells_on_host(predictions: Predictions, upscaling: Upscaling) -> tuple[Integers, Floats]:
    """The slots that are live, and their logits (N, w, h) contiguous, of the cells that pixels depend on."""
    used_h, used_w = upscaling.used_hw
    slot_N = predictions.live_PM.flatten().nonzero()[:, 0]
    cells_Swh = predictions.logits_PMhw.flatten(0, 1)[:, :used_h, :used_w].mT
    return slot_N.cpu().numpy(), cells_Swh.index_select(0, slot_N).contiguous().cpu().numpy()
