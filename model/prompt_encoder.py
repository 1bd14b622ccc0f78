"""Points, boxes and masks -> prompt embeddings (arXiv:2304.02643, appendix A).

Legend: P prompts, K points of a prompt, C channels, g embedding cells a side, h w low-resolution mask cells.
Coordinates are (x, y) in pixels of the model's padded input square.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.image_encoder import LayerNorm2d

BACKGROUND, FOREGROUND, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = range(4)
NOT_A_POINT = -1


class FourierPositions(nn.Module):
    """Random Fourier features of positions in the unit square."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", nn.init.normal_(torch.empty(2, features)))

    def forward(self, unit_xy: Tensor) -> Tensor:
        """(..., 2) in [0, 1] -> (..., 2 * features)."""
        angles = 2 * math.pi * ((2 * unit_xy - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Sparse tokens for points and boxes, a dense map for masks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.decoder_dim
        self.input_side, self.grid_side = config.input_side, config.grid_side
        self._padded_boxes = config.padded_boxes
        self.pe_layer = FourierPositions(C // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, C) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, C)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, kernel_size=2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, C, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, C)

    def get_dense_pe(self) -> Tensor:
        """(1, C, g, g): the position encoding of every cell of the image embedding."""
        g = self.grid_side
        steps = (torch.arange(g, dtype=torch.float32, device=self.no_mask_embed.weight.device) + 0.5) / g
        unit_gg2 = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
        return self.pe_layer(unit_gg2).permute(2, 0, 1)[None]

    def forward(
        self,
        *,
        points: tuple[Tensor, Tensor] | None = None,
        boxes_P4: Tensor | None = None,
        masks_P1hw: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embed prompts of one kind or several.

        points      (coords_PK2, labels_PK): label 1 foreground, 0 background, -1 padding
        boxes_P4    XYXY
        masks_P1hw  mask logits of an earlier answer, `ModelConfig.mask_side` square
        returns     sparse_PTC (T tokens, 0 without points and boxes), dense_PCgg
        """
        parts: list[Tensor] = []
        if points is not None:
            coords_PK2, labels_PK = points
            if boxes_P4 is None:  # the model was trained with a padding point wherever there is no box
                coords_PK2 = torch.cat([coords_PK2, torch.zeros_like(coords_PK2[:, :1])], dim=1)
                labels_PK = torch.cat([labels_PK, torch.full_like(labels_PK[:, :1], NOT_A_POINT)], dim=1)
            parts.append(self._embed_points(coords_PK2, labels_PK))
        if boxes_P4 is not None:
            parts.append(self._embed_boxes(boxes_P4))
            if self._padded_boxes:
                parts.append(self.not_a_point_embed.weight.expand(len(boxes_P4), 1, -1))
        dense_PCgg = self._embed_masks(masks_P1hw)
        P = parts[0].shape[0] if parts else dense_PCgg.shape[0]
        if not parts:
            parts = [dense_PCgg.new_zeros(P, 0, dense_PCgg.shape[1])]
        return torch.cat(parts, dim=1), dense_PCgg.expand(P, -1, -1, -1)

    def places(self, coords: Tensor) -> Tensor:
        """(..., 2) -> (..., C): the position encodings of points."""
        # Pixel centres; the division happens in the caller's precision (float64 from the generator) before float32.
        return self.pe_layer(((coords + 0.5) / self.input_side).float())

    def _embed_points(self, coords_PK2: Tensor, labels_PK: Tensor) -> Tensor:
        embedded_PKC = self.places(coords_PK2)
        labels_PK1 = labels_PK[..., None]
        embedded_PKC = torch.where(labels_PK1 == NOT_A_POINT, self.not_a_point_embed.weight, embedded_PKC)
        for kind in (BACKGROUND, FOREGROUND):
            embedded_PKC = embedded_PKC + (labels_PK1 == kind) * self.kind_1C(kind)
        return embedded_PKC

    def _embed_boxes(self, boxes_P4: Tensor) -> Tensor:
        corners_P2C = self.places(boxes_P4.reshape(-1, 2, 2))
        return corners_P2C + torch.cat([self.kind_1C(BOX_TOP_LEFT), self.kind_1C(BOX_BOTTOM_RIGHT)])

    def kind_1C(self, kind: int) -> Tensor:
        """What is added to points of that kind."""
        return self.point_embeddings[kind].get_parameter("weight")

    def _embed_masks(self, masks_P1hw: Tensor | None) -> Tensor:
        if masks_P1hw is not None:
            return self.mask_downscaling(masks_P1hw)
        return self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, self.grid_side, self.grid_side)
