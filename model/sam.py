"""Segment Anything as one module: encoder, prompt encoder and mask decoder under the released names (of SAM 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import CONFIGS, HieraConfig, ModelConfig, RepVitConfig, Sam3Config, SamConfig, TinyVitConfig
from model.hiera import Hiera
from model.image_encoder import ImageEncoder
from model.mask_decoder import Embedded, MaskDecoder
from model.prompt_encoder import PromptEncoder
from model.repvit import RepVit
from model.sam3_encoder import Sam3Encoder
from model.tiny_vit import TinyVit

__all__ = ["CONFIGS", "Sam", "SamConfig"]

# ImageNet statistics of 8-bit RGB, as in the released model.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class Sam(nn.Module):
    """`state_dict()` has exactly the keys of the released .pth files; of later families see `sam2_layouts` and
    `sam3_layouts`."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = _encoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        # SAM 2's, which stands for "nothing remembered of earlier frames".
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, config.decoder_dim)) if config.fine_features else None
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).reshape(3, 1, 1), persistent=False)

    def normalise(self, images_B3HW: Tensor) -> Tensor:
        """RGB in 0..255 (any dtype), at most the input side -> float, standardised, zero-padded to the input square."""
        standard = (images_B3HW - self.pixel_mean) / self.pixel_std
        H, W = standard.shape[-2:]
        return F.pad(standard, (0, self.config.input_side - W, 0, self.config.input_side - H))

    def embed(self, images_13SS: Tensor) -> Embedded:
        """An image of the encoder's square, normalised -> what the decoder starts from."""
        if self.no_mem_embed is None:
            return Embedded(self.image_encoder(images_13SS))
        embedding_1Cgg, *fine = self.image_encoder(images_13SS)
        return Embedded(embedding_1Cgg + self.no_mem_embed.reshape(1, -1, 1, 1), self.mask_decoder.fine(*fine))

    def answer(
        self,
        seen: Embedded,
        *,
        points: tuple[Tensor, Tensor] | None = None,
        boxes_P4: Tensor | None = None,
        masks_P1hw: Tensor | None = None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Logits (P, M, h, w) and predicted IoUs (P, M) of the decoder as published; prompts as in `PromptEncoder`."""
        sparse_PTC, dense_PCgg = self.prompt_encoder(points=points, boxes_P4=boxes_P4, masks_P1hw=masks_P1hw)
        return self.mask_decoder(
            image_embeddings=seen.embedding_1Cgg,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse_PTC,
            dense_prompt_embeddings=dense_PCgg,
            multimask_output=multimask,
            fine=seen.fine,
        )


def _encoder(config: ModelConfig) -> nn.Module:
    """The image encoder of the config's family."""
    if isinstance(config, TinyVitConfig):
        return TinyVit(config)
    if isinstance(config, HieraConfig):
        return Hiera(config)
    if isinstance(config, RepVitConfig):
        return RepVit(config)
    if isinstance(config, Sam3Config):
        return Sam3Encoder(config)
    if isinstance(config, SamConfig):
        return ImageEncoder(config)
    raise TypeError(f"{type(config).__name__} is no family of models")
