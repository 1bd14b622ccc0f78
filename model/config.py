"""The sizes of a Segment Anything model, and the table of the named ones.

Families differ in their image encoder. Those since SAM 2 also differ in how an image is resized, and their decoder has
more to it; what that is stands here as options of the one decoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar


class Resize(StrEnum):
    """How a crop becomes the encoder's square."""

    PAD = "pad"
    """The longer side fills it, rounded to 8 bits as Pillow does, and the rest is padding."""
    STRETCH = "stretch"
    """Both sides fill it, whatever the aspect, in float32."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes that all families have. Released sizes: arXiv:2304.02643 and its checkpoints' tensor shapes."""

    family: ClassVar[str]
    """Models that differ in sizes and weights alone share it. A run's metadata says it."""

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
    object_token: bool = False
    """Whether a token more stands before the others, trained to tell whether the object is there."""
    sigmoid_scores: bool = False
    """Whether predicted IoUs pass a sigmoid, and so lie between 0 and 1."""
    fine_features: bool = False
    """Whether maps of the encoder at 4 and 8 pixels a cell are added while masks are upscaled."""
    steady_single: bool = False
    """Whether a single mask that wavers at its boundary gives way to the best of the others."""
    padded_boxes: bool = False
    """Whether a box is followed by the padding point that stands after points."""
    logit_limit: float | None = None
    """Largest size of the logits of an answer that may be given back as a prompt."""
    resize: Resize = Resize.PAD
    unit_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of RGB in 0..1; of ImageNet. With `Resize.PAD` those of `Sam` are used, which are the same in 0..255."""
    unit_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

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

    family: ClassVar[str] = "sam"

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

    family: ClassVar[str] = "mobile_sam"

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


@dataclass(frozen=True, kw_only=True)
class Sam2Config(ModelConfig):
    """What SAM 2 brought, and the families after it kept."""

    object_token: bool = True
    sigmoid_scores: bool = True
    fine_features: bool = True
    steady_single: bool = True
    padded_boxes: bool = True
    logit_limit: float | None = 32.0
    resize: Resize = Resize.STRETCH


@dataclass(frozen=True, kw_only=True)
class HieraConfig(Sam2Config):
    """SAM 2's image model, with Hiera as its encoder (arXiv:2306.00989); the four stages are named by their index."""

    family: ClassVar[str] = "sam2"

    dims: tuple[int, int, int, int]
    """Channels."""
    depths: tuple[int, int, int, int]
    """Blocks."""
    heads: int
    """Of the attentions in stage 0; each stage has twice those of the one before."""
    global_blocks: tuple[int, ...]
    """By their number among all blocks. The others attend within windows."""
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    """Tokens a side of them."""
    background: int = 7
    """Cells a side of the position table that is enlarged to the whole map."""


@dataclass(frozen=True, kw_only=True)
class RepVitConfig(Sam2Config):
    """EdgeTAM's image model, with RepViT as its encoder (arXiv:2307.09283); stages are named by their index."""

    family: ClassVar[str] = "edgetam"

    dims: tuple[int, int, int, int]
    """Channels."""
    depths: tuple[int, int, int, int]
    """Blocks."""


@dataclass(frozen=True, kw_only=True)
class Sam3Config(Sam2Config):
    """SAM 3's image model for points. Its encoder, a plain ViT with rotated positions, is that of transformers."""

    family: ClassVar[str] = "sam3"

    embed_dim: int
    depth: int
    heads: int
    mlp_dim: int
    """Hidden channels of a block's MLP."""
    global_blocks: tuple[int, ...]
    window: int = 24
    """Tokens a side of an attention window."""
    table_side: int = 24
    """Tokens a side of the position table, which is repeated over the whole map."""
    input_side: int = 1008
    patch: int = 14
    unit_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    unit_std: tuple[float, float, float] = (0.5, 0.5, 0.5)


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
"""SAM 1's plain ViT: the smallest, which is bundled, and the released sizes."""
TRAINABLE: dict[str, ModelConfig] = {
    "small": HieraConfig(
        "small",
        dims=(48, 96, 192, 384),
        depths=(1, 2, 4, 1),
        heads=1,
        global_blocks=(4, 6),
        input_side=384,
        windows=(8, 4, 8, 4),
        background=8,
        decoder_dim=128,
        decoder_mlp=512,
        iou_head_dim=128,
    ),
    "tiny": CONFIGS["tiny"],
}
"""Those that come with weights, which are trained here."""

_VIT_B_BLOCKS = (2, 5, 8, 11)
_TINY_VIT_5M = TinyVitConfig(
    "mobile_sam", dims=(64, 128, 160, 320), depths=(2, 2, 6, 2), heads=(4, 5, 10), windows=(7, 14, 7)
)
_SMALL = (96, 192, 384, 768)
_HIERA = (
    HieraConfig("tiny", dims=_SMALL, depths=(1, 2, 7, 2), heads=1, global_blocks=(5, 7, 9)),
    HieraConfig("small", dims=_SMALL, depths=(1, 2, 11, 2), heads=1, global_blocks=(7, 10, 13)),
    HieraConfig(
        "base_plus", dims=(112, 224, 448, 896), depths=(2, 3, 16, 3), heads=2, global_blocks=(12, 16, 20), background=14
    ),
    HieraConfig(
        "large",
        dims=(144, 288, 576, 1152),
        depths=(2, 6, 36, 4),
        heads=2,
        global_blocks=(23, 33, 43),
        windows=(8, 4, 16, 8),
    ),
)
MODELS: dict[str, ModelConfig] = {
    **TRAINABLE,
    **CONFIGS,
    # SlimSAM (arXiv:2312.05284): ViT-B with half, and with 23 %, of the channels. The sizes of its "uniform" files.
    "slimsam_50": SamConfig("slimsam_50", embed_dim=384, depth=12, heads=12, global_blocks=_VIT_B_BLOCKS),
    "slimsam_77": SamConfig("slimsam_77", embed_dim=168, depth=12, heads=12, global_blocks=_VIT_B_BLOCKS, mlp_dim=696),
    # MobileSAM (arXiv:2306.14289) and TinySAM (arXiv:2312.13789): one network, two sets of weights.
    "mobile_sam": _TINY_VIT_5M,
    "tiny_sam": replace(_TINY_VIT_5M, name="tiny_sam"),
    # SAM 2 (arXiv:2408.00714): one image model, two sets of weights. Sizes: its repository's configurations.
    **{
        f"{family}_{config.name}": replace(config, name=f"{family}_{config.name}")
        for family in ("sam2.1", "sam2")
        for config in _HIERA
    },
    # EdgeTAM (arXiv:2501.07256). Sizes: its repository's configuration, and timm's of repvit_m1.
    "edgetam": RepVitConfig("edgetam", dims=(48, 96, 192, 384), depths=(2, 2, 14, 2)),
    # SAM 3 (arXiv:2511.16719). Sizes: its repository's model_builder.py.
    "sam3": Sam3Config("sam3", embed_dim=1024, depth=32, heads=16, mlp_dim=4736, global_blocks=(7, 15, 23, 31)),
}
"""Everything that `model=` may name."""
