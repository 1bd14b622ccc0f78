"""A crop -> the encoder's square; its points -> that square; and where in the frame of its masks it lies.

One way a family, chosen by `ModelConfig.resize`. The frame is the square to which low-resolution masks are enlarged
first: the input square of SAM 1, whose padding is then cut off, and in SAM 2 that of the masks themselves.

Legend: H W pixels of a crop, S the input square's side.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import Resize
from model.resize import resize_bilinear
from model.sam import Sam
from model.transfers import Pixels, on_device, sent

Image_HW3 = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Placed = npt.NDArray[np.float64] | npt.NDArray[np.float32]


class Preprocess(Protocol):
    """What a family makes of a crop."""

    @property
    def frame_side(self) -> int:
        """Of the square to which low-resolution masks are enlarged first."""
        ...

    def inside(self, crop_hw: tuple[int, int]) -> tuple[int, int]:
        """Pixels of the frame that the crop takes, from the top left."""
        ...

    def placed(self, image_HW3: Image_HW3) -> Pixels:
        """An image where its crops are cut: on the model's device, if `square` begins there."""
        ...

    def square(self, crop_HW3: Pixels) -> Tensor:
        """(1, 3, S, S) float32, normalised, on the model's device."""
        ...

    def place(self, points_xy: Points, crop_hw: tuple[int, int]) -> Placed:
        """Pixels of the crop -> pixels of the input square; (x, y) is the last dimension."""
        ...


def preprocess_of(sam: Sam) -> Preprocess:
    """That of the model's family."""
    return PadResize(sam) if sam.config.resize is Resize.PAD else StretchResize(sam)


class PadResize:
    """SAM 1's: the longer side fills the square, rounded to 8 bits as Pillow does; the rest is zeros."""

    def __init__(self, sam: Sam) -> None:
        self._sam = sam

    @property
    def frame_side(self) -> int:
        return self._sam.config.input_side

    def inside(self, crop_hw: tuple[int, int]) -> tuple[int, int]:
        return fit_into_square(crop_hw, self.frame_side)

    def placed(self, image_HW3: Image_HW3) -> Pixels:
        device = self._sam.pixel_mean.device
        return image_HW3 if device.type == "cpu" else on_device(image_HW3, device)

    def square(self, crop_HW3: Pixels) -> Tensor:
        pixels_HW3 = on_device(crop_HW3, self._sam.pixel_mean.device)
        resized_1HW3 = resize_bilinear(pixels_HW3, *self.inside((crop_HW3.shape[0], crop_HW3.shape[1])))[None]
        return self._sam.normalise(resized_1HW3.permute(0, 3, 1, 2).contiguous())

    def place(self, points_xy: Points, crop_hw: tuple[int, int]) -> Placed:
        """float64: the released code divides in it and rounds to float32 last."""
        resized_hw = self.inside(crop_hw)
        return points_xy * np.array([resized_hw[1] / crop_hw[1], resized_hw[0] / crop_hw[0]], dtype=np.float64)


class StretchResize:
    """SAM 2's: both sides fill the square, antialiased in float32.

    On the CPU whatever the model's device, as in the released code: a GPU's antialiased resize rounds otherwise.
    """

    def __init__(self, sam: Sam) -> None:
        self._side, self.frame_side = sam.config.input_side, sam.config.mask_side
        self._device = sam.pixel_mean.device
        self._mean = torch.tensor(sam.config.unit_mean).reshape(3, 1, 1)
        self._std = torch.tensor(sam.config.unit_std).reshape(3, 1, 1)

    def inside(self, crop_hw: tuple[int, int]) -> tuple[int, int]:
        return self.frame_side, self.frame_side

    def placed(self, image_HW3: Image_HW3) -> Pixels:
        return image_HW3

    def square(self, crop_HW3: Pixels) -> Tensor:
        channels = torch.from_numpy(np.ascontiguousarray(crop_HW3)).unbind(dim=2)
        # One channel after the other: an image of 268 million pixels takes 2 GB here and not 6.
        resized = [_stretched(channel_HW, self._side) for channel_HW in channels]
        return sent(((torch.stack(resized) - self._mean) / self._std)[None], self._device)

    def place(self, points_xy: Points, crop_hw: tuple[int, int]) -> Placed:
        """float32 from the first step on, as in the released code."""
        share = points_xy.astype(np.float32) / np.array([crop_hw[1], crop_hw[0]], np.float32)
        return share * np.float32(self._side)


def _stretched(channel_HW: Tensor, side: int) -> Tensor:
    """8-bit -> (side, side) float32 in 0..1."""
    unit_11HW = channel_HW.contiguous().float().div_(255)[None, None]
    return F.interpolate(unit_11HW, (side, side), mode="bilinear", antialias=True)[0, 0]


def fit_into_square(hw: tuple[int, int], side: int) -> tuple[int, int]:
    """The size that makes the longer side `side` and keeps the aspect, halves rounded up, at least one pixel."""
    scale = side / max(hw)
    return max(1, int(hw[0] * scale + 0.5)), max(1, int(hw[1] * scale + 0.5))
