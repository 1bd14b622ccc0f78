"""The sizes of a Segment Anything model, and the table of the named ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SamConfig:
    """Every size of one model. Released sizes: arXiv:2304.02643 and its checkpoints' tensor shapes."""

    name: str
    embed_dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    input_side: int = 1024
    """Pixels a side of the square that the encoder sees."""
    patch: int = 16
    """Pixels a side of one token."""
    window: int = 14
    """Tokens a side of an attention window."""
    mlp_ratio: int = 4
    decoder_dim: int = 256
    """Channels of the image embedding, the prompts and the decoder."""
    decoder_depth: int = 2
    """Two-way layers: 2 in the released checkpoints, 3 in the paper's model for SA-1B (appendix B)."""
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    iou_head_depth: int = 3
    iou_head_dim: int = 256
    multimask_outputs: int = 3

    @property
    def grid_side(self) -> int:
        """Tokens a side of the image embedding."""
        return self.input_side // self.patch

    @property
    def mask_side(self) -> int:
        """Cells a side of a low-resolution mask."""
        return 4 * self.grid_side


CONFIGS = {
    "tiny": SamConfig(
        "tiny",
        embed_dim=192,
        depth=6,
        heads=3,
        global_blocks=(2, 5),
        input_side=256,
        window=8,
        decoder_dim=128,
        decoder_mlp=512,
        iou_head_dim=128,
    ),
    "vit_b": SamConfig("vit_b", embed_dim=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)),
    "vit_l": SamConfig("vit_l", embed_dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": SamConfig("vit_h", embed_dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
}
