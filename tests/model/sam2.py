"""A SAM 2 of small sizes with random weights, for tests."""

from __future__ import annotations

import torch
from torch import nn

from model.config import HieraConfig
from model.sam import Sam

SMALL = HieraConfig(
    "sam2.1_small_for_tests",
    dims=(16, 32, 64, 128),
    depths=(1, 2, 3, 2),
    heads=1,
    global_blocks=(4,),
    windows=(8, 4, 14, 7),
    input_side=256,
    decoder_dim=64,
    decoder_mlp=128,
    iou_head_dim=64,
)
"""Maps of 64, 32, 16 and 8 tokens a side: windows of 14 and 7 fill none, as with 1024 pixels."""


def random_sam_2(config: HieraConfig = SMALL, *, seed: int = 7) -> Sam:
    """Every tensor at random, large enough to show; fresh ones are zero in many places."""
    torch.manual_seed(seed)
    sam = Sam(config).eval().requires_grad_(requires_grad=False)
    for module in sam.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name not in ("pixel_mean", "pixel_std", "positions_1ssC"):
                scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.1
                offset = 1.0 if tensor.dim() == 1 and name == "weight" else 0.0
                tensor.copy_(offset + scale * torch.randn_like(tensor))
    assert not any(isinstance(module, nn.Dropout) for module in sam.modules())
    sam.load_state_dict(sam.state_dict())
    return sam
