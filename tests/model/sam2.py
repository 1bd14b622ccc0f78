"""SAM 2 of small sizes, what its published decoder answers, and which encoder tensors nobody reads, for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import HieraConfig
from model.mask_decoder import Embedded
from model.sam import Sam

SMALL = HieraConfig(
    "sam2.1_small_for_tests",
    dims=(16, 32, 64, 128),
    depths=(1, 2, 3, 2),
    heads=1,
    global_blocks=(4,),
    input_side=256,
    decoder_dim=64,
    decoder_mlp=128,
    iou_head_dim=64,
)
"""Maps of 64, 32, 16 and 8 tokens a side: windows of 14 and 7 fill none, as with 1024 pixels."""


def published(sam: Sam, seen: Embedded, coords_P2: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and scores of the published decoder, for single points."""
    return sam.answer(seen, points=(coords_P2[:, None], torch.ones(len(coords_P2), 1)), multimask=True)


@torch.inference_mode()
def unread_by_the_encoder(sam: Sam, images: Tensor) -> list[str]:
    """Tensors before the decoder that move nothing when they change: they would load and be silently ignored. What all
    keys have in common is left out, since no softmax can see it."""

    def answers() -> Tensor:
        seen = sam.embed(images)
        return torch.cat([each.flatten() for each in (seen.embedding_1Cgg, *(seen.fine or ()))])

    before, unread = answers(), list[str]()
    for name, tensor in sam.state_dict().items():
        if not name.startswith(("image_encoder.", "no_mem")) or name.endswith("k_proj.bias"):
            continue
        kept = tensor.clone()
        tensor.add_(torch.rand_like(tensor))
        if not (answers() - before).abs().max() > 1e-5:
            unread.append(name)
        tensor.copy_(kept)
    return unread
