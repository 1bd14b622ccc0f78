"""Every token as a prompt: a second, denser task for the image encoder alone. Its head is not exported.

A point's mask says little about the encoder's other tokens, and there is no pretrained encoder to start from. Here
random tokens each name, by one inner product per cell, the whole, part and subpart that they lie on.

Legend: B images, Q query tokens of an image, L levels, C channels, N tokens, h w cells of this task.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.training.losses import pairwise_mask_cost
from model.training.scenes import LEVELS
from model.training.settings import LossSettings

CELLS = 2
"""Cells along a token's side that are told apart; half the mask's own, for many coarse answers teach more than few
fine ones."""
WIDTH = 32
"""Channels in which tokens are compared."""


class DenseHead(nn.Module):
    """Token features -> for each query and level, logits over all cells."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.queries = nn.Linear(config.decoder_dim, LEVELS * WIDTH)
        self.keys = nn.Linear(config.decoder_dim, CELLS * CELLS * WIDTH)
        self.bias = nn.Parameter(torch.full((LEVELS, 1, 1), -2.0))

    def forward(self, embedding_BCgg: Tensor, tokens_BQ: Tensor) -> Tensor:
        """(B, Q, L, h, w)"""
        B, C, g, _ = embedding_BCgg.shape
        tokens_BNC = embedding_BCgg.flatten(2).transpose(1, 2)
        chosen_BQC = tokens_BNC.gather(1, tokens_BQ[..., None].expand(-1, -1, C))
        queries_BKd = self.queries(chosen_BQC).reshape(B, -1, WIDTH)
        keys = self.keys(tokens_BNC).reshape(B, g, g, CELLS, CELLS, WIDTH)
        keys_BMd = keys.transpose(2, 3).reshape(B, -1, WIDTH)
        logits = (queries_BKd @ keys_BMd.transpose(1, 2)) / WIDTH**0.5
        side = CELLS * g
        return logits.reshape(B, -1, LEVELS, side, side) + self.bias


def dense_loss(
    head: DenseHead, embedding_BCgg: Tensor, labels_BLhw: Tensor, settings: LossSettings, rng: torch.Generator
) -> Tensor:
    """Mean cost over random tokens and the levels that have something under the token's middle."""
    B, _, g, _ = embedding_BCgg.shape
    stride = labels_BLhw.shape[-1] // (CELLS * g)
    labels_BLhw = labels_BLhw[:, :, stride // 2 :: stride, stride // 2 :: stride]
    tokens_BQ = torch.randint(g * g, (B, settings.dense_queries), generator=rng, device=embedding_BCgg.device)
    rows_BQ, columns_BQ = tokens_BQ // g * CELLS + CELLS // 2, tokens_BQ % g * CELLS + CELLS // 2
    own_BQL = labels_BLhw[torch.arange(B, device=embedding_BCgg.device)[:, None], :, rows_BQ, columns_BQ]
    asked_BQL = own_BQL > 0
    if not bool(asked_BQL.any()):
        return embedding_BCgg.sum() * 0.0
    truths_BQLhw = labels_BLhw[:, None] == own_BQL[..., None, None]
    logits_BQLhw = head(embedding_BCgg, tokens_BQ).float()
    cost = pairwise_mask_cost(logits_BQLhw[asked_BQL][:, None], truths_BQLhw[asked_BQL][:, None], settings)
    return cost.sum() / (B * settings.dense_queries)
