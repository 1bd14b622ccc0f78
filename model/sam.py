"""Segment Anything as one module: encoder, prompt encoder and mask decoder under the released names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import CONFIGS, ModelConfig, SamConfig, TinyVitConfig
from model.image_encoder import ImageEncoder
from model.mask_decoder import MaskDecoder
from model.prompt_encoder import PromptEncoder
from model.tiny_vit import TinyVit

__all__ = ["CONFIGS", "Sam", "SamConfig"]

# ImageNet statistics of 8-bit RGB, as in the released model.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class Sam(nn.Module):
    """`state_dict()` has exactly the keys of the released .pth files."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = _encoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).reshape(3, 1, 1), persistent=False)

    def normalise(self, images_B3HW: Tensor) -> Tensor:
        """RGB in 0..255 (any dtype), at most the input side -> float, standardised, zero-padded to the input square."""
        standard = (images_B3HW - self.pixel_mean) / self.pixel_std
        H, W = standard.shape[-2:]
        return F.pad(standard, (0, self.config.input_side - W, 0, self.config.input_side - H))


def _encoder(config: ModelConfig) -> nn.Module:
    """The image encoder of the config's family."""
    if isinstance(config, TinyVitConfig):
        return TinyVit(config)
    if isinstance(config, SamConfig):
        return ImageEncoder(config)
    raise TypeError(f"{type(config).__name__} is no family of models")
