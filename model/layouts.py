"""Names of the same tensors in the two public checkpoint layouts, and the sizes that a checkpoint's shapes imply.

The released layout is that of the .pth files of Segment Anything; the other is that of Hugging Face's `SamModel`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from model.config import CONFIGS, SamConfig

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


def infer_config(released: Mapping[str, Tensor]) -> SamConfig:
    """Read every size off the tensors' shapes. Decoder heads cannot be seen in a shape; all releases have 8.

    raises  KeyError or ValueError-like errors are the caller's to turn into a sentence: a needed tensor is absent
    """
    embed_dim, _, patch, _ = released["image_encoder.patch_embed.proj.weight"].shape
    grid = released["image_encoder.pos_embed"].shape[1]
    depth = 1 + max(int(name.split(".")[2]) for name in released if name.startswith("image_encoder.blocks."))
    tables = [released[f"image_encoder.blocks.{index}.attn.rel_pos_h"] for index in range(depth)]
    sides = [(len(table) + 1) // 2 for table in tables]
    windows = {side for side in sides if side != grid}
    heads_of_iou = [
        name for name in released if re.fullmatch(r"mask_decoder\.iou_prediction_head\.layers\.\d+\.weight", name)
    ]
    decoder_layers = {name.split(".")[3] for name in released if name.startswith("mask_decoder.transformer.layers.")}
    sizes = SamConfig(
        name="custom",
        embed_dim=embed_dim,
        depth=depth,
        heads=embed_dim // tables[0].shape[1],
        global_blocks=tuple(index for index, side in enumerate(sides) if side == grid),
        input_side=grid * patch,
        patch=patch,
        window=windows.pop() if windows else 0,
        mlp_ratio=len(released["image_encoder.blocks.0.mlp.lin1.bias"]) // embed_dim,
        decoder_dim=released["mask_decoder.iou_token.weight"].shape[1],
        decoder_depth=len(decoder_layers),
        decoder_mlp=len(released["mask_decoder.transformer.layers.0.mlp.lin1.bias"]),
        iou_head_depth=len(heads_of_iou),
        iou_head_dim=len(released["mask_decoder.iou_prediction_head.layers.0.bias"]),
        multimask_outputs=len(released["mask_decoder.mask_tokens.weight"]) - 1,
    )
    same = [
        name
        for name, config in CONFIGS.items()
        if replace(config, name="custom", decoder_depth=len(decoder_layers)) == sizes
    ]
    return replace(sizes, name=same[0]) if same else sizes
