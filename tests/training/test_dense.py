"""The dense task: cells where they belong, and silence where there is no truth."""

from __future__ import annotations

from dataclasses import replace

import torch

from model.sam import CONFIGS
from model.training.dense import CELLS, DenseHead, dense_loss
from model.training.settings import LossSettings

CONFIG = replace(CONFIGS["tiny"], input_side=64)
SETTINGS = LossSettings()


def test_the_head_can_say_which_cells_of_a_token_are_meant() -> None:
    """Rows, columns and cells within a token are easily mixed up by a reshape; such a head could not learn."""
    torch.manual_seed(0)
    g = CONFIG.grid_side
    kinds_gg = torch.arange(g * g).reshape(g, g) % 2  # tokens whose lower half, or whose right half, is a thing
    embedding_1Cgg = torch.zeros(1, CONFIG.decoder_dim, g, g)
    embedding_1Cgg[0, 0], embedding_1Cgg[0, 1] = kinds_gg.float(), 1 - kinds_gg.float()
    things_hw = torch.zeros(CELLS * g, CELLS * g, dtype=torch.int32)
    for row in range(g):
        for column in range(g):
            token_22 = things_hw[row * CELLS :, column * CELLS :][:CELLS, :CELLS]
            half = token_22[CELLS // 2 :] if kinds_gg[row, column] else token_22[:, CELLS // 2 :]
            half[:] = 1
    labels_1Lhw = torch.zeros(1, 3, CONFIG.mask_side, CONFIG.mask_side, dtype=torch.int32)
    stride = CONFIG.mask_side // (CELLS * g)
    labels_1Lhw[0, 0] = things_hw.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    head = DenseHead(CONFIG)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        dense_loss(head, embedding_1Cgg, labels_1Lhw, SETTINGS, torch.Generator()).backward()
        optimiser.step()
    with torch.no_grad():
        logits_hw = head(embedding_1Cgg, torch.tensor([[5]]))[0, 0, 0]
    assert torch.equal(logits_hw > 0, things_hw == 1)


def test_tokens_on_nothing_ask_nothing() -> None:
    """Padding and levels without a part have no truth; the loss must stay finite and still have a gradient."""
    embedding_1Cgg = torch.randn(1, CONFIG.decoder_dim, CONFIG.grid_side, CONFIG.grid_side, requires_grad=True)
    labels_1Lhw = torch.zeros(1, 3, CONFIG.mask_side, CONFIG.mask_side, dtype=torch.int32)
    loss = dense_loss(DenseHead(CONFIG), embedding_1Cgg, labels_1Lhw, SETTINGS, torch.Generator())
    loss.backward()
    assert float(loss.detach()) == 0
    assert embedding_1Cgg.grad is not None
    assert not embedding_1Cgg.grad.any()
