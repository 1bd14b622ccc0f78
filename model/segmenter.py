"""A loaded model as the generator uses it: crops in, candidates out.

How a crop becomes the encoder's square is in `preprocess`. Knows of crops alone: neither the image around one, nor the
grid of points, nor any threshold but the one it is handed.

Legend: P points, H W pixels of a crop, S the square input's side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from model.crop_batches import GPU_CROPS, batches_for
from model.mask_decoder import Embedded
from model.point_decoder import GPU_POINTS, PointDecoder, Predictions
from model.precisions import PRECISIONS
from model.preprocess import preprocess_of
from model.refining import refined
from model.sam import Sam
from model.shared_image import SharedImage
from model.transfers import Pixels, sent
from model.upscaling import cells_inside


@dataclass(frozen=True, slots=True)
class EncodedCrop:
    """A crop as the decoder takes it.

    crop_hw     its own pixels
    resized_hw  its pixels in the frame, the square to which low-resolution masks are enlarged first
    seen        before the work that its points share
    """

    image: SharedImage
    crop_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    seen: Embedded


class TorchSegmenter:
    """A checked, evaluated Sam on one device.

    weights_sha256  names the checkpoint file it came from
    precision       one of PRECISIONS
    """

    def __init__(self, sam: Sam, *, weights_sha256: str, precision: str = "fp32") -> None:
        self.sam = sam.eval().requires_grad_(requires_grad=False)
        self.weights_sha256 = weights_sha256
        self._device = sam.pixel_mean.device
        self._encoder_dtype = PRECISIONS[precision]
        self.preprocess = preprocess_of(sam)
        with torch.inference_mode():
            self._decoder = PointDecoder(self.sam, precision)
            self._batches = batches_for(self.sam, self._decoder.share, precision)

    @property
    def name(self) -> str:
        return self.sam.config.name

    @property
    def frame_side(self) -> int:
        return self.preprocess.frame_side

    @property
    def outputs_per_prompt(self) -> int:
        return self.sam.config.multimask_outputs

    @property
    def points_at_once(self) -> int | None:
        return None if self._device.type == "cpu" else GPU_POINTS

    @property
    def crops_at_once(self) -> int | None:
        return None if self._device.type == "cpu" else GPU_CROPS

    def spare_memory(self) -> None:
        """Give back what only saves time, and do not take it again."""
        self._decoder.spare_memory()
        if self._batches is not None:
            self._batches.spare_memory()

    def placed(self, image_HW3: npt.NDArray[np.uint8]) -> Pixels:
        """An RGB image where its crops are cut: on a GPU, unless the model's family resizes on the host."""
        return self.preprocess.placed(image_HW3)

    @torch.inference_mode()
    def encode(self, crops_HW3: Sequence[Pixels]) -> list[EncodedCrop]:
        """RGB crops of any sizes, arrays or slices of what `placed` gives -> one encoding each.

        Crops pass the encoder one by one, or on a GPU in batches of fixed sizes, so that an encoding never depends on
        its neighbours (matrix products of other shapes may round otherwise).
        """
        if self._batches is None:
            return [self._encode_one(crop_HW3) for crop_HW3 in crops_HW3]
        sizes = [(crop_HW3.shape[0], crop_HW3.shape[1]) for crop_HW3 in crops_HW3]
        resized = [self.preprocess.inside(crop_hw) for crop_hw in sizes]
        encodings = self._batches.encode(crops_HW3, resized)
        return [
            EncodedCrop(shared, crop_hw, resized_hw, Embedded(embedding_1Cgg))
            for (shared, embedding_1Cgg), crop_hw, resized_hw in zip(encodings, sizes, resized, strict=True)
        ]

    def _encode_one(self, crop_HW3: Pixels) -> EncodedCrop:
        crop_hw = crop_HW3.shape[0], crop_HW3.shape[1]
        seen = self.embed(crop_HW3)
        return EncodedCrop(self._decoder.share(*seen), crop_hw, self.preprocess.inside(crop_hw), seen)

    @torch.inference_mode()
    def embed(self, crop_HW3: Pixels) -> Embedded:
        """An RGB crop of any size after the image encoder in float32, before anything of its prompts."""
        images_13SS = self.preprocess.square(crop_HW3)
        lower = self._encoder_dtype is not torch.float32
        with torch.autocast(self._device.type, self._encoder_dtype) if lower else nullcontext():
            seen = self.sam.embed(images_13SS)
        fine = None if seen.fine is None else (seen.fine[0].float(), seen.fine[1].float())
        return Embedded(seen.embedding_1Cgg.float(), fine)

    @torch.inference_mode()
    def decode(
        self, crop: EncodedCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float
    ) -> Predictions:
        """Prompt with single foreground points in the crop's pixels.

        Of the masks with a predicted IoU > `pred_iou_thresh` there are logits, 0 on the cells that no pixel of the crop
        depends on. On a GPU their last bits depend on the block that so many points are asked in (`point_decoder`).
        """
        coords_P2 = sent(self.preprocess.place(points_xy_P2, crop.crop_hw), self._device)
        inside = cells_inside(crop.resized_hw, input_side=self.frame_side, grid_side=self.sam.config.grid_side)
        return self._decoder.decode(crop.image, coords_P2, pred_iou_thresh=pred_iou_thresh, cells_hw=inside)

    @torch.inference_mode()
    def decode_refined(
        self, crop: EncodedCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float
    ) -> Predictions:
        """As `decode`, with each mask's refined answer in its place (`refining`)."""
        coords_P2 = sent(self.preprocess.place(points_xy_P2, crop.crop_hw), self._device)
        whole = (self.sam.config.grid_side, self.sam.config.grid_side)
        first = self._decoder.decode(crop.image, coords_P2, pred_iou_thresh=-math.inf, cells_hw=whole)
        logits_PMhw, scores_PM = refined(self.sam, crop.seen, coords_P2, first.logits_PMhw)
        return Predictions(scores_PM, scores_PM > pred_iou_thresh, logits_PMhw)
