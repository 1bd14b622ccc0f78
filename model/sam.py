"""Segment Anything as one module: encoder, prompt encoder and mask decoder under the released names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import CONFIGS, SamConfig
from model.image_encoder import ImageEncoder
from model.mask_decoder import MaskDecoder
from model.prompt_encoder import PromptEncoder

__all__ = ["CONFIGS", "Sam", "SamConfig"]

# ImageNet statistics of 8-bit RGB, as in the released model.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class Sam(nn.Module):
    """`state_dict()` has exactly the keys of the released .pth files."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).reshape(3, 1, 1), persistent=False)

    def normalise(self, images_B3HW: Tensor) -> Tensor:
        """RGB in 0..255 (any dtype), at most the input side -> float, standardised, zero-padded to the input square."""
        standard = (images_B3HW - self.pixel_mean) / self.pixel_std
        H, W = standard.shape[-2:]
        return F.pad(standard, (0, self.config.input_side - W, 0, self.config.input_side - H))
