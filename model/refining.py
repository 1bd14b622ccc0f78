"""Each mask of a point given back to the model with that point: its one refined answer takes the mask's place.

As `use_m2m` of SAM 2's generator. A mask is a prompt that covers the whole image, so that prompts share no work, and
the decoder as published answers them: a mask costs what a point costs the released decoder. Blocks have a fixed size,
the last one filled up, so that no result depends on how many points are asked at once.

Legend: P points, M masks a point, S = P M, B prompts of a block, h w low-resolution cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.mask_decoder import Embedded
from model.sam import Sam

BLOCK, GPU_BLOCK = 4, 32
"""Prompts at once: each takes 60 MB with the released sizes."""


def refined(sam: Sam, seen: Embedded, coords_P2: Tensor, logits_PMhw: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (P, M, h, w) and predicted IoUs (P, M) of the second answers.

    coords_P2    pixels of the input square
    logits_PMhw  of the first ones, on all cells
    """
    P, M = logits_PMhw.shape[:2]
    out_Shw, scores_S = torch.empty_like(logits_PMhw).flatten(0, 1), logits_PMhw.new_empty(P * M)
    coords_S2, masks_Shw = coords_P2.repeat_interleave(M, dim=0), logits_PMhw.flatten(0, 1)
    size = BLOCK if logits_PMhw.device.type == "cpu" else GPU_BLOCK
    for start in range(0, P * M, size):
        stop = min(start + size, P * M)
        # Beyond the end the last one again.
        block_B = torch.arange(start, start + size, device=coords_P2.device).clamp_(max=P * M - 1)
        logits_B1hw, scores_B1 = _answer(sam, seen, coords_S2[block_B], masks_Shw[block_B])
        out_Shw[start:stop], scores_S[start:stop] = logits_B1hw[: stop - start, 0], scores_B1[: stop - start, 0]
    return out_Shw.unflatten(0, (P, M)), scores_S.unflatten(0, (P, M))


def _answer(sam: Sam, seen: Embedded, coords_B2: Tensor, masks_Bhw: Tensor) -> tuple[Tensor, Tensor]:
    limit = sam.config.logit_limit
    kept_Bhw = masks_Bhw if limit is None else masks_Bhw.clamp(-limit, limit)
    labels_B1 = torch.ones(len(coords_B2), 1, dtype=torch.int64, device=coords_B2.device)
    return sam.answer(seen, points=(coords_B2[:, None], labels_B1), masks_P1hw=kept_Bhw[:, None], multimask=False)
