"""Names of SAM 2's tensors, and EdgeTAM's, in their two public layouts, and here.

Here a SAM 2 has the names that `Sam` gives them: those of SAM 1's released files, and of SAM 2's where SAM 1 has none.
The released layout is that of the .pt files; the other is that of Hugging Face's `Sam2Model` and `Sam2VideoModel`.
What only videos need is left out and told: of SAM 2 by its exact name, of later families by the part it belongs to.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from model.layouts import from_hugging_face, to_hugging_face

_RELEASED_ROOT, _HF_ROOT = "image_encoder.trunk.", "vision_encoder.backbone."
_EDGETAM = (_RELEASED_ROOT + "body.", _HF_ROOT + "timm_model.")
_ENDS = ".{weight,bias}"
_ATTENTION = "memory_attention.layers.{0,1,2,3}.{self_attn,cross_attn_image}."
_VIDEO = (
    *("maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial", "mask_downsample" + _ENDS),
    *(_ATTENTION + "{q,k,v,out}_proj" + _ENDS, "memory_attention.layers.{0,1,2,3}.{linear1,linear2}" + _ENDS),
    *("memory_attention.layers.{0,1,2,3}.{norm1,norm2,norm3}" + _ENDS, "memory_attention.norm" + _ENDS),
    "memory_encoder.mask_downsampler.encoder.{0,1,3,4,6,7,9,10,12}" + _ENDS,
    "memory_encoder.{pix_feat_proj,out_proj}" + _ENDS,
    "memory_encoder.fuser.layers.{0,1}.{dwconv,norm,pwconv1,pwconv2}" + _ENDS,
    *("memory_encoder.fuser.layers.{0,1}.gamma", "obj_ptr_proj.layers.{0,1,2}" + _ENDS, "obj_ptr_tpos_proj" + _ENDS),
)
_HF_VIDEO = (
    *("memory_temporal_positional_encoding", "no_memory_positional_encoding", "no_object_pointer"),
    *("occlusion_spatial_embedding_parameter", "mask_downsample" + _ENDS),
    *(_ATTENTION + "{q,k,v,o}_proj" + _ENDS, "memory_attention.layers.{0,1,2,3}.{linear1,linear2}" + _ENDS),
    "memory_attention.layers.{0,1,2,3}.{layer_norm1,layer_norm2,layer_norm3}" + _ENDS,
    "memory_attention.layer_norm" + _ENDS,
    "memory_encoder.mask_downsampler.layers.{0,1,2,3}.{conv,layer_norm}" + _ENDS,
    *("memory_encoder.mask_downsampler.final_conv" + _ENDS, "memory_encoder.{feature_projection,projection}" + _ENDS),
    "memory_encoder.memory_fuser.layers.{0,1}.{depthwise_conv,layer_norm,pointwise_conv1,pointwise_conv2}" + _ENDS,
    *("memory_encoder.memory_fuser.layers.{0,1}.scale", "object_pointer_proj.{proj_in,layers.0,proj_out}" + _ENDS),
    "temporal_positional_encoding_projection_layer" + _ENDS,
)
_PRESENCE = (
    "sam_mask_decoder.pred_obj_score_head.layers.{0,1,2}" + _ENDS,
    "mask_decoder.pred_obj_score_head.{proj_in,layers.0,proj_out}" + _ENDS,
)
_ONLY_2_1 = ("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter")
"""What the files of SAM 2.1 have beyond those of 2.0, in either layout. No image passes it."""
_ANY_VIDEO = ("maskmem_tpos_enc", "memory_temporal_positional_encoding")
VIDEO_PARTS = (
    r"(memory_attention|memory_encoder|maskmem_backbone|transformer|spatial_perceiver|mask_downsample|maskmem_tpos_enc"
    r"|memory_temporal_positional_encoding|no_mem_pos_enc|no_memory_positional_encoding|no_obj_ptr|no_object_pointer"
    r"|no_obj_embed_spatial|occlusion_spatial_embedding_parameter|obj_ptr_proj|object_pointer_proj|obj_ptr_tpos_proj"
    r"|temporal_positional_encoding_projection_layer)(\.|$)"
)
"""How the names begin of what only videos need, in EdgeTAM and SAM 3."""


def _expanded(patterns: Iterable[str]) -> Iterator[str]:
    """Every name that a pattern with {alternatives} stands for."""
    for pattern in patterns:
        parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
        yield from ("".join(chosen) for chosen in itertools.product(*parts))


_FOR_VIDEOS = "what only videos need"
_KINDS = {
    _FOR_VIDEOS: frozenset(_expanded((*_VIDEO, *_HF_VIDEO))),
    "the head of the object's presence, which no mask depends on": frozenset(_expanded(_PRESENCE)),
}


def is_sam_2(names: Iterable[str]) -> bool:
    return any(name.startswith((_RELEASED_ROOT, _HF_ROOT)) for name in names)


def is_hugging_face(names: Iterable[str]) -> bool:
    return any(name.startswith(_HF_ROOT) for name in names)


def release_of(names: Iterable[str]) -> str | None:
    """2.1 or 2, or None for a file of the image model alone, which does not show it."""
    names = set(names)
    if names.isdisjoint(_ANY_VIDEO):
        return None
    return "2" if names.isdisjoint(_ONLY_2_1) else "2.1"


def ours(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The image model's tensors by our names, and what was dropped, one sentence a kind.

    Names that neither layout knows stay as they are, to be reported as unexpected.
    """
    kept, notes = dict(found), list[str]()
    later = any(name.startswith(_EDGETAM) for name in found)
    for kind, names in _KINDS.items():
        gone = [
            name for name in kept if name in names or (later and kind is _FOR_VIDEOS and re.match(VIDEO_PARTS, name))
        ]
        for name in gone:
            del kept[name]
        if gone:
            notes.append(f"{kind} ({len(gone)}: {gone[0]} to {gone[-1]})")
    rename = ours_of_hugging_face if is_hugging_face(found) else ours_of_released
    return rename(kept), tuple(notes)


def released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> those of the released files."""
    return {
        re.sub(r"^(prompt_encoder|mask_decoder)\.", r"sam_\1.", _numbered(name)): tensor
        for name, tensor in tensors.items()
    }


def hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> those of `Sam2Model`."""
    renamed, points = dict[str, Tensor](), dict[str, Tensor]()
    for name, tensor in to_hugging_face(tensors).items():
        if name.startswith("prompt_encoder.point_embed."):
            points[name] = tensor
            continue
        name = name.replace("vision_encoder.trunk.", _HF_ROOT).replace(".out_proj.", ".o_proj.")
        name = name.replace("vision_encoder.backbone.body.", "vision_encoder.backbone.timm_model.")
        name = re.sub(r"^(vision_encoder\.neck\.convs\.\d+)\.conv\.", r"\1.", name)
        name = re.sub(r"\.mlp\.(layers\.0|lin1)\.", ".mlp.proj_in.", name)
        name = re.sub(r"\.mlp\.(layers\.1|lin2)\.", ".mlp.proj_out.", name)
        renamed[name.replace("no_mem_embed", "no_memory_embedding")] = tensor
    rows = [points[name] for name in sorted(points)]
    return renamed | {"prompt_encoder.point_embed.weight": torch.cat(rows)}


def ours_of_released(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `released`."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        name = re.sub(r"^sam_(prompt_encoder|mask_decoder)\.", r"\1.", name)
        if name.startswith("mask_decoder."):
            name = name.replace(".mlp.layers.0.", ".mlp.lin1.").replace(".mlp.layers.1.", ".mlp.lin2.")
        renamed[name] = tensor
    return renamed


def _numbered(name: str) -> str:
    return name.replace(".mlp.lin1.", ".mlp.layers.0.").replace(".mlp.lin2.", ".mlp.layers.1.")


def ours_of_hugging_face(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `hugging_face`."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in from_hugging_face(kept).items():
        if name == "prompt_encoder.point_embeddings.weight":
            renamed |= {f"prompt_encoder.point_embeddings.{n}.weight": row for n, row in enumerate(tensor.split(1))}
            continue
        name = name.replace("image_encoder.backbone.", _RELEASED_ROOT).replace(".o_proj.", ".out_proj.")
        name = name.replace("image_encoder.trunk.timm_model.", "image_encoder.trunk.body.")
        name = re.sub(r"^(image_encoder\.neck\.convs\.\d+)\.", r"\1.conv.", name)
        first, second = ("layers.0", "layers.1") if name.startswith(_RELEASED_ROOT) else ("lin1", "lin2")
        name = name.replace(".mlp.proj_in.", f".mlp.{first}.").replace(".mlp.proj_out.", f".mlp.{second}.")
        renamed[name.replace("no_memory_embedding", "no_mem_embed")] = tensor
    return renamed
