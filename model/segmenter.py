"""A loaded model as the generator uses it: crops in, candidates out.

Owns the size to which a crop is resized, and the way from its pixels to the input square's for points. Knows of crops
alone: neither the image around one, nor the grid of points, nor any threshold but the one it is handed.

Legend: P points, H W pixels of a crop, S the square input's side, C channels, g embedding cells a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.crop_batches import GPU_CROPS, batches_for
from model.point_decoder import GPU_POINTS, PointDecoder, Predictions
from model.precisions import PRECISIONS
from model.resize import resize_bilinear
from model.sam import Sam
from model.shared_image import SharedImage
from model.transfers import sent
from model.upscaling import cells_inside


@dataclass(frozen=True, slots=True)
class EncodedCrop:
    """A crop as the decoder takes it.

    crop_hw     its own pixels
    resized_hw  its pixels inside the input square
    """

    image: SharedImage
    crop_hw: tuple[int, int]
    resized_hw: tuple[int, int]


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
        with torch.inference_mode():
            self._decoder = PointDecoder(self.sam)
            self._batches = batches_for(self.sam, self._decoder.share, precision)

    @property
    def name(self) -> str:
        return self.sam.config.name

    @property
    def input_side(self) -> int:
        return self.sam.config.input_side

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

    @torch.inference_mode()
    def encode(self, crops_HW3: Sequence[npt.NDArray[np.uint8]]) -> list[EncodedCrop]:
        """RGB crops of any sizes -> one encoding each.

        Crops pass the encoder one by one, or on a GPU in batches of fixed sizes, so that an encoding never depends on
        its neighbours (matrix products of other shapes may round otherwise).
        """
        if self._batches is None:
            return [self._encode_one(crop_HW3) for crop_HW3 in crops_HW3]
        sizes = [(crop_HW3.shape[0], crop_HW3.shape[1]) for crop_HW3 in crops_HW3]
        resized = [fit_into_square(crop_hw, self.input_side) for crop_hw in sizes]
        shared = self._batches.encode(crops_HW3, resized)
        return [EncodedCrop(*each) for each in zip(shared, sizes, resized, strict=True)]

    def _encode_one(self, crop_HW3: npt.NDArray[np.uint8]) -> EncodedCrop:
        crop_hw = crop_HW3.shape[0], crop_HW3.shape[1]
        return EncodedCrop(
            self._decoder.share(self.embed(crop_HW3)), crop_hw, fit_into_square(crop_hw, self.input_side)
        )

    @torch.inference_mode()
    def embed(self, crop_HW3: npt.NDArray[np.uint8]) -> Tensor:
        """(1, C, g, g) float32: an RGB crop of any size after the image encoder, before anything of the decoder."""
        resized_hw = fit_into_square((crop_HW3.shape[0], crop_HW3.shape[1]), self.input_side)
        pixels_HW3 = sent(np.ascontiguousarray(crop_HW3), self._device)
        resized_1HW3 = resize_bilinear(pixels_HW3, *resized_hw)[None]
        images_13SS = self.sam.normalise(resized_1HW3.permute(0, 3, 1, 2).contiguous())
        lower = self._encoder_dtype is not torch.float32
        with torch.autocast(self._device.type, self._encoder_dtype) if lower else nullcontext():
            embedding_1Cgg = self.sam.image_encoder(images_13SS)
        return embedding_1Cgg.float()

    @torch.inference_mode()
    def decode(
        self, crop: EncodedCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float
    ) -> Predictions:
        """Prompt with single foreground points in the crop's pixels.

        Of the masks with a predicted IoU > `pred_iou_thresh` there are logits, 0 on the cells that no pixel of the crop
        depends on. On a GPU their last bits depend on whether there are at least `point_decoder.GPU_BLOCK` points.
        """
        scale_xy = np.array(
            [crop.resized_hw[1] / crop.crop_hw[1], crop.resized_hw[0] / crop.crop_hw[0]], dtype=np.float64
        )
        coords_P2 = sent(points_xy_P2 * scale_xy, self._device)
        inside = cells_inside(crop.resized_hw, input_side=self.input_side, grid_side=self.sam.config.grid_side)
        return self._decoder.decode(crop.image, coords_P2, pred_iou_thresh=pred_iou_thresh, cells_hw=inside)


def fit_into_square(hw: tuple[int, int], side: int) -> tuple[int, int]:
    """The size that makes the longer side `side` and keeps the aspect, halves rounded up, at least one pixel."""
    scale = side / max(hw)
    return max(1, int(hw[0] * scale + 0.5)), max(1, int(hw[1] * scale + 0.5))
