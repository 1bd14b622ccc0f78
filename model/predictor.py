"""One image and prompts of any kind: points, a box, an earlier answer, in any combination.

The automatic generator does not come this way: its single points share most of their work (point_decoder.py).
Equal to `SamPredictor` of segment_anything 1.0 and, with a SAM 2, to `SAM2ImagePredictor`, but for how sums round.

Legend: H W pixels of the image, K points of the prompt, M masks answered, h w low-resolution cells, C channels,
g embedding cells a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.segmenter import TorchSegmenter

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prompt:
    """What to segment, in pixels of the image; points, a box and an earlier answer may be combined.

    points_xy_K2  float64
    labels_K      int64: 1 for a point inside the object, 0 for one outside of it
    box_xyxy      float64, (4,)
    mask_hw       float32: low-resolution logits of an earlier answer
    """

    points_xy_K2: Numbers | None = None
    labels_K: npt.NDArray[np.int64] | None = None
    box_xyxy: Numbers | None = None
    mask_hw: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Answer:
    """logits_MHW      float32, above 0 inside a mask
    predicted_iou_M  float32, never clipped
    logits_Mhw       float32, at low resolution, on the frame of the masks: a later prompt's `mask_hw`
    """

    logits_MHW: Tensor
    predicted_iou_M: Tensor
    logits_Mhw: Tensor


class EmbeddedImage:
    """An image after the encoder, to be prompted as often as one likes."""

    def __init__(self, segmenter: TorchSegmenter, image_HW3: npt.NDArray[np.uint8]) -> None:
        self.hw = image_HW3.shape[0], image_HW3.shape[1]
        self._sam = segmenter.sam
        self._preprocess = segmenter.preprocess
        self._seen = segmenter.embed(image_HW3)

    @property
    def mask_side(self) -> int:
        """Of `Prompt.mask_hw`."""
        return self._sam.config.mask_side

    @torch.inference_mode()
    def answer(self, prompt: Prompt, *, multimask: bool) -> Answer:
        """Three masks from coarse to fine for a prompt that may mean several things, or one mask."""
        logits_1Mhw, predicted_iou_1M = self._sam.answer(
            self._seen,
            points=self._points(prompt),
            boxes_P4=None if prompt.box_xyxy is None else self._scaled(prompt.box_xyxy.reshape(2, 2)).reshape(1, 4),
            masks_P1hw=None if prompt.mask_hw is None else self._on_device(prompt.mask_hw)[None, None],
            multimask=multimask,
        )
        upscaled_1MHW, limit = self._upscaled(logits_1Mhw), self._sam.config.logit_limit
        kept_1Mhw = logits_1Mhw if limit is None else logits_1Mhw.clamp(-limit, limit)
        return Answer(upscaled_1MHW[0], predicted_iou_1M[0], kept_1Mhw[0])

    def _points(self, prompt: Prompt) -> tuple[Tensor, Tensor] | None:
        if prompt.points_xy_K2 is None or prompt.labels_K is None:
            return None
        return self._scaled(prompt.points_xy_K2)[None], self._on_device(prompt.labels_K)[None]

    def _scaled(self, xy_K2: Numbers) -> Tensor:
        """Pixels of the image -> of the input square. Float32 from here on, as in the released code."""
        return self._on_device(self._preprocess.place(xy_K2, self.hw).astype(np.float32))

    def _on_device(self, values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._seen.embedding_1Cgg.device)

    def _upscaled(self, logits_1Mhw: Tensor) -> Tensor:
        """Cells -> the frame -> without its padding, the image."""
        side, (height, width) = self._preprocess.frame_side, self._preprocess.inside(self.hw)
        square = F.interpolate(logits_1Mhw, (side, side), mode="bilinear", align_corners=False)
        return F.interpolate(square[..., :height, :width], self.hw, mode="bilinear", align_corners=False)
