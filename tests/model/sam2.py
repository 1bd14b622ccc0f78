"""SAM 2 of small sizes, for tests."""

from __future__ import annotations

from model.config import HieraConfig

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
