"""The sizes of a Segment Anything model, and the table of the named ones.

Families differ in their image encoder alone: prompts, decoder, preprocessing and thresholds are Segment Anything's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes that all families have. Released sizes: arXiv:2304.02643 and its checkpoints' tensor shapes."""

    name: str = field(kw_only=False)
    input_side: int = 1024
    """Pixels a side of the square that the encoder sees."""
    patch: int = 16
    """Pixels a side of one cell of the image embedding."""
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
        """Cells a side of the image embedding."""
        return self.input_side // self.patch

    @property
    def mask_side(self) -> int:
        """Cells a side of a low-resolution mask."""
        return 4 * self.grid_side


@dataclass(frozen=True, kw_only=True)
class SamConfig(ModelConfig):
    """A model with the released plain ViT as its encoder, or one cut down from it; a token is a cell."""

    embed_dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14
    """Tokens a side of an attention window."""
    mlp_dim: int | None = None
    """Hidden channels of a block's MLP, where they are not four times `embed_dim`."""

    @property
    def mlp_channels(self) -> int:
        """Hidden channels of a block's MLP."""
        return 4 * self.embed_dim if self.mlp_dim is None else self.mlp_dim


@dataclass(frozen=True, kw_only=True)
class TinyVitConfig(ModelConfig):
    """A model with TinyViT as its encoder (arXiv:2207.10666); the four stages are named by their index."""

    dims: tuple[int, int, int, int]
    """Channels."""
    depths: tuple[int, int, int, int]
    """Blocks."""
    heads: tuple[int, int, int]
    """Of the attentions in stages 1 to 3; stage 0 is convolutions."""
    windows: tuple[int, int, int]
    """Tokens a side of their windows."""
    strides: tuple[int, int, int] = (2, 2, 1)
    """Between a stage and the next. TinyViT itself has 2, 2, 2; MobileSAM left the last map finer."""
    expansion: int = 4
    """Hidden channels of a block, in channels."""


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
"""The bundled model and the released sizes of Segment Anything."""

_VIT_B_BLOCKS = (2, 5, 8, 11)
_TINY_VIT_5M = TinyVitConfig(
    "mobile_sam", dims=(64, 128, 160, 320), depths=(2, 2, 6, 2), heads=(4, 5, 10), windows=(7, 14, 7)
)
MODELS: dict[str, ModelConfig] = {
    **CONFIGS,
    # SlimSAM (arXiv:2312.05284): ViT-B with half, and with 23 %, of the channels. The sizes of its "uniform" files.
    "slimsam_50": SamConfig("slimsam_50", embed_dim=384, depth=12, heads=12, global_blocks=_VIT_B_BLOCKS),
    "slimsam_77": SamConfig("slimsam_77", embed_dim=168, depth=12, heads=12, global_blocks=_VIT_B_BLOCKS, mlp_dim=696),
    # MobileSAM (arXiv:2306.14289) and TinySAM (arXiv:2312.13789): one network, two sets of weights.
    "mobile_sam": _TINY_VIT_5M,
    "tiny_sam": replace(_TINY_VIT_5M, name="tiny_sam"),
}
"""Everything that `model=` may name."""
