"""Names of the same tensors in the two public checkpoint layouts, and the sizes that a checkpoint's shapes imply.

The released layout is that of the .pth files of Segment Anything; the other is that of Hugging Face's `SamModel`. Those
of SAM 2 and EdgeTAM are in `sam2_layouts`, those of SAM 3 in `sam3_layouts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from math import isqrt
from typing import Any

from torch import Tensor

from model.config import MODELS, HieraConfig, ModelConfig, RepVitConfig, Sam3Config, SamConfig, TinyVitConfig
from model.opening import CheckpointError

# (released, Hugging Face); the patterns are applied in order, each wherever it matches.
_RENAMES = [
    ("image_encoder.", "vision_encoder."),
    ("patch_embed.proj.", "patch_embed.projection."),
    ("vision_encoder.blocks.", "vision_encoder.layers."),
    ("neck.0.", "neck.conv1."),
    ("neck.1.", "neck.layer_norm1."),
    ("neck.2.", "neck.conv2."),
    ("neck.3.", "neck.layer_norm2."),
    ("prompt_encoder.point_embeddings.", "prompt_encoder.point_embed."),
    ("mask_downscaling.0.", "mask_embed.conv1."),
    ("mask_downscaling.1.", "mask_embed.layer_norm1."),
    ("mask_downscaling.3.", "mask_embed.conv2."),
    ("mask_downscaling.4.", "mask_embed.layer_norm2."),
    ("mask_downscaling.6.", "mask_embed.conv3."),
    ("output_upscaling.0.", "upscale_conv1."),
    ("output_upscaling.1.", "upscale_layer_norm."),
    ("output_upscaling.3.", "upscale_conv2."),
    ("norm_final_attn.", "layer_norm_final_attn."),
]
_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_HF_POSITIONS = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
_BLOCK_NORM = re.compile(r"\.norm(\d)\.")
_HEAD_LAYER = re.compile(r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.(\d+)\.")


def is_hugging_face(names: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("vision_encoder.") for name in names)


def to_hugging_face(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the released layout into Hugging Face's."""
    last_layer = _last_head_layers(released)
    renamed: dict[str, Tensor] = {}
    for name, tensor in released.items():
        if name == _POSITIONS:
            renamed |= dict.fromkeys(_HF_POSITIONS, tensor)
            continue
        renamed[_hugging_face_name(name, last_layer)] = tensor
    return renamed


def from_hugging_face(hugging_face: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_hugging_face`; names it does not know stay as they are, to be reported as unexpected."""
    released: dict[str, Tensor] = {}
    for name, tensor in hugging_face.items():
        if name in _HF_POSITIONS:
            released[_POSITIONS] = tensor
            continue
        released[_released_name(name, hugging_face)] = tensor
    return released


def _hugging_face_name(name: str, last_layer: Mapping[str, int]) -> str:
    for ours, theirs in _RENAMES:
        name = name.replace(ours, theirs)
    name = _BLOCK_NORM.sub(r".layer_norm\1.", name)

    def rename_head(match: re.Match[str]) -> str:
        head, layer = match[1], int(match[2])
        if layer == 0:
            return f"{head}.proj_in."
        return f"{head}.proj_out." if layer == last_layer[head] else f"{head}.layers.{layer - 1}."

    return _HEAD_LAYER.sub(rename_head, name)


def _released_name(name: str, hugging_face: Mapping[str, Tensor]) -> str:
    for ours, theirs in reversed(_RENAMES):
        name = name.replace(theirs, ours)
    name = re.sub(r"\.layer_norm(\d)\.", r".norm\1.", name)
    if match := re.search(
        r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.(proj_in|proj_out|layers\.(\d+))\.", name
    ):
        middle = sum(1 for other in hugging_face if re.search(rf"{re.escape(match[1])}\.layers\.\d+\.weight$", other))
        layer = {"proj_in": 0, "proj_out": middle + 1}.get(match[2], int(match[3] or 0) + 1)
        name = name.replace(match[0], f"{match[1]}.layers.{layer}.")
    return name


def _last_head_layers(released: Mapping[str, Tensor]) -> dict[str, int]:
    last: dict[str, int] = {}
    for name in released:
        if match := _HEAD_LAYER.search(name):
            last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    return last


def infer_config(released: Mapping[str, Tensor], *, expected: ModelConfig | None = None) -> ModelConfig:
    """Read every size off the tensors' shapes. Decoder heads cannot be seen in a shape; all releases have 8.

    expected  has the sizes that no shape shows: of a TinyViT the input's side and the strides, of a Hiera also heads,
              windows and global blocks, and likewise of a SAM 3
    raises    CheckpointError for a Hiera or a SAM 3 of which these are not known
              KeyError or ValueError-like errors are the caller's to turn into a sentence: a needed tensor is absent
    """
    if "image_encoder.patch_embed.seq.0.c.weight" in released:
        sizes = _tiny_vit_sizes(released, expected)
    elif "image_encoder.trunk.patch_embed.proj.weight" in released:
        sizes = _hiera_sizes(released, expected)
    elif "image_encoder.trunk.body.stem.conv1.c.weight" in released:
        sizes = _repvit_sizes(released, expected)
    elif "image_encoder.vision.backbone.embeddings.position_embeddings" in released:
        sizes = _sam_3_sizes(released, expected)
    else:
        sizes = _vit_sizes(released)
    same = [
        name
        for name, config in MODELS.items()
        if replace(config, name="custom", decoder_depth=sizes.decoder_depth) == sizes
    ]
    return replace(sizes, name=same[0]) if same else sizes


def _vit_sizes(released: Mapping[str, Tensor]) -> SamConfig:
    embed_dim, _, patch, _ = released["image_encoder.patch_embed.proj.weight"].shape
    grid = released["image_encoder.pos_embed"].shape[1]
    depth = _count(released, r"image_encoder\.blocks\.(\d+)\.")
    tables = [released[f"image_encoder.blocks.{index}.attn.rel_pos_h"] for index in range(depth)]
    sides = [(len(table) + 1) // 2 for table in tables]
    windows = {side for side in sides if side != grid}
    hidden = len(released["image_encoder.blocks.0.mlp.lin1.bias"])
    return SamConfig(
        name="custom",
        embed_dim=embed_dim,
        depth=depth,
        heads=embed_dim // tables[0].shape[1],
        global_blocks=tuple(index for index, side in enumerate(sides) if side == grid),
        input_side=grid * patch,
        patch=patch,
        window=windows.pop() if windows else 0,
        mlp_dim=None if hidden == 4 * embed_dim else hidden,
        **_decoder_sizes(released),
    )


def _tiny_vit_sizes(released: Mapping[str, Tensor], expected: ModelConfig | None) -> TinyVitConfig:
    like = expected if isinstance(expected, TinyVitConfig) else MODELS["mobile_sam"]
    if not isinstance(like, TinyVitConfig):
        raise TypeError("mobile_sam has no TinyViT")
    stage = "image_encoder.layers.{}.blocks.0."
    convolution = released[stage.format(0) + "conv1.c.weight"]
    biases = [released[stage.format(index) + "attn.attention_biases"] for index in (1, 2, 3)]
    norms = [released[stage.format(index) + "attn.norm.weight"] for index in (1, 2, 3)]
    hidden, first = convolution.shape[:2]
    depths = [_count(released, rf"image_encoder\.layers\.{index}\.blocks\.(\d+)\.") for index in range(4)]
    return replace(
        like,
        name="custom",
        dims=(first, *(len(norm) for norm in norms)),
        depths=tuple(depths),
        heads=tuple(len(table) for table in biases),
        windows=tuple(isqrt(table.shape[1]) for table in biases),
        expansion=hidden // first,
        **_decoder_sizes(released),
    )


def _hiera_sizes(released: Mapping[str, Tensor], expected: ModelConfig | None) -> HieraConfig:
    block = "image_encoder.trunk.blocks.{}.attn.qkv.bias"
    count = _count(released, r"image_encoder\.trunk\.blocks\.(\d+)\.")
    runs = [(C, len([*run])) for C, run in groupby(len(released[block.format(n)]) // 3 for n in range(count))]
    dims, depths = tuple(channels for channels, _ in runs), tuple(depth for _, depth in runs)
    known = [config for config in (expected, *MODELS.values()) if isinstance(config, HieraConfig)]
    for config in known:
        if (config.dims, config.depths) == (dims, depths):
            return replace(config, name="custom", **_decoder_sizes(released))
    raise CheckpointError(
        f"the checkpoint is a SAM 2 with {list(dims)} channels and {list(depths)} blocks in its stages; the windows and"
        " heads of such a model do not show in its file, and only those of the released SAM 2 and of the bundled "
        "small are known here"
    )


def _repvit_sizes(released: Mapping[str, Tensor], expected: ModelConfig | None) -> RepVitConfig:
    like = expected if isinstance(expected, RepVitConfig) else MODELS["edgetam"]
    if not isinstance(like, RepVitConfig):
        raise TypeError("edgetam has no RepViT")
    body = "image_encoder.trunk.body."
    downsamples = [released[f"{body}stages_{n}.downsample.channel_downsample.bn.weight"] for n in (1, 2, 3)]
    depths = [_count(released, rf"{re.escape(body)}stages_{n}\.blocks\.(\d+)\.") for n in range(4)]
    return replace(
        like,
        name="custom",
        dims=(len(released[body + "stem.conv2.bn.weight"]), *(len(norm) for norm in downsamples)),
        depths=tuple(depths),
        **_decoder_sizes(released),
    )


def _sam_3_sizes(released: Mapping[str, Tensor], expected: ModelConfig | None) -> Sam3Config:
    root = "image_encoder.vision.backbone."
    depth = _count(released, rf"{re.escape(root)}layers\.(\d+)\.")
    hidden, channels = released[f"{root}layers.0.mlp.fc1.weight"].shape
    for config in (expected, *MODELS.values()):
        if isinstance(config, Sam3Config) and (config.embed_dim, config.depth, config.mlp_dim) == (
            channels,
            depth,
            hidden,
        ):
            return replace(config, name="custom", **_decoder_sizes(released))
    raise CheckpointError(
        f"the checkpoint is a SAM 3 with {channels} channels and {depth} blocks; the windows and heads of such a model "
        "do not show in its file, and only those of facebook/sam3 are known here"
    )


def _decoder_sizes(released: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "decoder_dim": released["mask_decoder.iou_token.weight"].shape[1],
        "decoder_depth": _count(released, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        "decoder_mlp": len(released["mask_decoder.transformer.layers.0.mlp.lin1.bias"]),
        "iou_head_depth": _count(released, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
        "iou_head_dim": len(released["mask_decoder.iou_prediction_head.layers.0.bias"]),
        "multimask_outputs": len(released["mask_decoder.mask_tokens.weight"]) - 1,
    }


def _count(names: Iterable[str], pattern: str) -> int:
    """How many there are of what the pattern numbers from 0."""
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)
