"""SAM 3 of a small size, for tests, and the file of one as facebook/sam3 has it."""

from __future__ import annotations

from model.config import Sam3Config

SMALL = Sam3Config(
    "sam3",
    embed_dim=64,
    depth=3,
    heads=2,
    mlp_dim=96,
    global_blocks=(1,),
    window=4,
    table_side=4,
    input_side=168,
    decoder_dim=64,
    decoder_mlp=128,
    iou_head_dim=64,
)
"""12 tokens a side: three windows, as 72 are three of 24."""
