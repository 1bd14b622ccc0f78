"""Prompt tokens and image embedding -> mask logits and predicted IoU (arXiv:2304.02643, appendix A; arXiv:2408.00714).

The decoder as published: it holds the weights under their released names, and training differentiates through it. What
SAM 2 added are options of its config. Inference on single points does the same with less work in `point_decoder`.

Legend: P prompts, T tokens of a prompt, N image positions, C channels, g embedding cells a side, M outputs, h w = 4g.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attention
from model.config import ModelConfig
from model.image_encoder import LayerNorm2d

STEADY_OFFSET, STEADY = 0.05, 0.98
"""Logits by which a single mask's cut-off is moved, and the IoU of the two cuts below which another mask is taken.
Those of SAM 2's `build_sam2`."""


class Embedded(NamedTuple):
    """An image as the decoder starts from it.

    embedding_1Cgg  from the image encoder
    fine            what is added while masks are upscaled: (1, C / 8, 4 g, 4 g) and (1, C / 4, 2 g, 2 g)
    """

    embedding_1Cgg: Tensor
    fine: tuple[Tensor, Tensor] | None = None


class Attention(nn.Module):
    """Multi-head attention whose inner width is `inner` channels."""

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner)
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, q_PTC: Tensor, k_PNC: Tensor, v_PNC: Tensor) -> Tensor:
        q, k, v = self._split(self.q_proj(q_PTC)), self._split(self.k_proj(k_PNC)), self._split(self.v_proj(v_PNC))
        out_PHTd = attention(q, k, v)
        return self.out_proj(out_PHTd.transpose(1, 2).flatten(2))

    def _split(self, x_PTC: Tensor) -> Tensor:
        return x_PTC.unflatten(2, (self.heads, -1)).transpose(1, 2)


class TokenMLP(nn.Module):
    """Two linear layers with ReLU."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayLayer(nn.Module):
    """Attention among the tokens, from tokens to image, an MLP of the tokens; then attention from image to tokens."""

    def __init__(self, config: ModelConfig, *, first: bool) -> None:
        super().__init__()
        C, heads = config.decoder_dim, config.decoder_heads
        self.first = first
        self.self_attn = Attention(C, C, heads)
        self.norm1 = nn.LayerNorm(C)
        self.cross_attn_token_to_image = Attention(C, C // 2, heads)
        self.norm2 = nn.LayerNorm(C)
        self.mlp = TokenMLP(C, config.decoder_mlp)
        self.norm3 = nn.LayerNorm(C)
        self.norm4 = nn.LayerNorm(C)
        self.cross_attn_image_to_token = Attention(C, C // 2, heads)

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.attend_to_self(tokens, token_pe)
        placed_image = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, placed_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(placed_image, tokens + token_pe, tokens))
        return tokens, image

    def attend_to_self(self, tokens: Tensor, token_pe: Tensor) -> Tensor:
        """The layer's first step, in which the image has no part."""
        if self.first:  # the tokens are their own position encoding here, and there is nothing to add them to
            return self.norm1(self.self_attn(tokens, tokens, tokens))
        placed = tokens + token_pe
        return self.norm1(tokens + self.self_attn(placed, placed, tokens))


class TwoWayTransformer(nn.Module):
    """`decoder_depth` two-way layers and a final attention from tokens to image."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.decoder_dim
        self.layers = nn.ModuleList(TwoWayLayer(config, first=i == 0) for i in range(config.decoder_depth))
        self.final_attn_token_to_image = Attention(C, C // 2, config.decoder_heads)
        self.norm_final_attn = nn.LayerNorm(C)

    def two_way_layers(self) -> list[TwoWayLayer]:
        """`layers`, as what they are."""
        return [cast(TwoWayLayer, layer) for layer in self.layers]

    def forward(self, image_PNC: Tensor, image_pe_1NC: Tensor, tokens_PTC: Tensor) -> tuple[Tensor, Tensor]:
        token_pe = tokens_PTC
        for layer in self.layers:
            tokens_PTC, image_PNC = layer(tokens_PTC, image_PNC, token_pe, image_pe_1NC)
        attended = self.final_attn_token_to_image(tokens_PTC + token_pe, image_PNC + image_pe_1NC, image_PNC)
        return self.norm_final_attn(tokens_PTC + attended), image_PNC


class HeadMLP(nn.Module):
    """`depth` linear layers with ReLU between them."""

    def __init__(self, channels: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        widths = [channels, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    """Output 0 is the single mask, the others are the ambiguity-aware three."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._sigmoid, self._steady = config.sigmoid_scores, config.steady_single
        C, outputs = config.decoder_dim, config.multimask_outputs + 1
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Embedding(1, C)
        self.mask_tokens = nn.Embedding(outputs, C)
        self.obj_score_token = nn.Embedding(1, C) if config.object_token else None
        self.conv_s0 = nn.Conv2d(C, C // 8, kernel_size=1) if config.fine_features else None
        self.conv_s1 = nn.Conv2d(C, C // 4, kernel_size=1) if config.fine_features else None
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(C, C // 4, kernel_size=2, stride=2),
            LayerNorm2d(C // 4),
            nn.GELU(),
            nn.ConvTranspose2d(C // 4, C // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(HeadMLP(C, C, C // 8, 3) for _ in range(outputs))
        self.iou_prediction_head = HeadMLP(C, config.iou_head_dim, outputs, config.iou_head_depth)

    def forward(
        self,
        *,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        fine: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """All outputs at once.

        image_embeddings          (1 or P, C, g, g): one image for all prompts, or one for each
        image_pe                  (1, C, g, g)
        sparse_prompt_embeddings  (P, T, C)
        dense_prompt_embeddings   (P, C, g, g)
        fine                      see `Embedded`
        returns                   logits_PMhw and predicted_iou_PM; M = 3 with `multimask_output`, else 1
        """
        tokens_PTC, image_PCgg = self.attend(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        )
        predicted_iou = self.predicted_iou(tokens_PTC)
        if self._steady and not multimask_output:
            return _steady_or_best(self.mask_logits(tokens_PTC, image_PCgg, slice(None), fine), predicted_iou)
        wanted = slice(1, None) if multimask_output else slice(0, 1)
        return self.mask_logits(tokens_PTC, image_PCgg, wanted, fine), predicted_iou[:, wanted]

    def own_tokens(self) -> Tensor:
        """(T, C): the tokens that stand before a prompt's, those of the outputs last."""
        tokens = [self.iou_token.weight, self.mask_tokens.weight]
        return torch.cat(tokens if self.obj_score_token is None else [self.obj_score_token.weight, *tokens])

    @property
    def iou_place(self) -> int:
        """Where the token of the predicted IoUs is among them; those of the outputs follow."""
        return 0 if self.obj_score_token is None else 1

    def fine(self, fine_0: Tensor, fine_1: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's maps at 4 and 8 pixels a cell, as they are added to masks."""
        if self.conv_s0 is None or self.conv_s1 is None:
            raise TypeError("this decoder takes no fine maps")
        return self.conv_s0(fine_0), self.conv_s1(fine_1)

    def attend(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse_PTC: Tensor, dense_PCgg: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The transformer: output tokens (P, 1 + outputs, C) and the image as each prompt sees it (P, C, g, g)."""
        P, _, g, _ = dense_PCgg.shape
        own_TC = self.own_tokens()
        tokens_PTC = torch.cat([own_TC.expand(P, -1, -1), sparse_PTC], dim=1)
        image_PNC = (image_embeddings + dense_PCgg).flatten(2).transpose(1, 2)
        tokens_PTC, image_PNC = self.transformer(image_PNC, image_pe.flatten(2).transpose(1, 2), tokens_PTC)
        return tokens_PTC[:, self.iou_place : len(own_TC)], image_PNC.transpose(1, 2).unflatten(2, (g, g))

    def predicted_iou(self, tokens_PTC: Tensor) -> Tensor:
        """(P, outputs), unclipped: the model's guess of each mask's IoU with the object meant."""
        scores = self.iou_prediction_head(tokens_PTC[:, 0])
        return scores.sigmoid() if self._sigmoid else scores

    def mask_logits(
        self, tokens_PTC: Tensor, image_PCgg: Tensor, wanted: slice, fine: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """(P, M, 4g, 4g): the logits of the `wanted` outputs."""
        if fine is None:
            upscaled_Pchw = self.output_upscaling(image_PCgg)
        else:
            first, norm, act, second, last = self.output_upscaling
            upscaled_Pchw = last(second(act(norm(first(image_PCgg) + fine[1]))) + fine[0])
        outputs = range(len(self.output_hypernetworks_mlps))[wanted]
        weights_PMc = torch.stack([self.output_hypernetworks_mlps[m](tokens_PTC[:, 1 + m]) for m in outputs], dim=1)
        h, w = upscaled_Pchw.shape[2:]
        return (weights_PMc @ upscaled_Pchw.flatten(2)).unflatten(2, (h, w))


def _steady_or_best(logits_PMhw: Tensor, predicted_iou_PM: Tensor) -> tuple[Tensor, Tensor]:
    """One mask a prompt: the single one if it hardly changes with its cut-off, else the best of the others."""
    tight_P, loose_P = (
        (logits_PMhw[:, 0] > offset).flatten(1).sum(dim=1).float() for offset in (STEADY_OFFSET, -STEADY_OFFSET)
    )
    is_steady_P = (loose_P == 0) | (tight_P / loose_P >= STEADY)
    chosen_P = torch.where(is_steady_P, 0, 1 + predicted_iou_PM[:, 1:].argmax(dim=1))
    prompts_P = torch.arange(len(chosen_P), device=chosen_P.device)
    return logits_PMhw[prompts_P, chosen_P][:, None], predicted_iou_PM[prompts_P, chosen_P][:, None]
