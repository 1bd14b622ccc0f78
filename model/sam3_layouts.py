"""Names of SAM 3's tensors in its two public layouts, and here.

The released layout is that of sam3.pt; the other is that of Hugging Face's facebook/sam3 and `Sam3TrackerModel`. Here
the image encoder has transformers' names, and the rest those of `sam2_layouts`. SAM 3 is several models on one encoder:
what is not asked with points is left out by the part that it belongs to, and told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isqrt

from torch import Tensor

from model import sam2_layouts

_HF_TABLE, _TABLE = "vision_encoder.backbone.embeddings.position_embeddings", "vision_backbone.trunk.pos_embed"
_DETECTOR = re.compile(
    r"detector\.(?!backbone\.vision_backbone\.(trunk|sam2_convs)\.)"
    r"|detector_model\.(?!vision_encoder\.backbone\.)"
)
_VIDEO = re.compile(rf"(tracker\.|tracker_model\.|){sam2_layouts.VIDEO_PARTS}")
_PRESENCE = re.compile(r"(tracker\.|tracker_model\.|)(sam_)?mask_decoder\.pred_obj_score_head\.")
_COARSEST = re.compile(r"(tracker_neck|vision_encoder\.neck)\.fpn_layers\.3\.|.*vision_backbone\.sam2_convs\.3\.")
_ANGLES = re.compile(r".*\.attn\.freqs_cis$|.*\.rotary_emb\.rope_embeddings")
_KINDS = {
    "the detector, which takes words and examples": _DETECTOR,
    "what only videos need": _VIDEO,
    "the head of the object's presence, which no mask depends on": _PRESENCE,
    "the neck's coarsest map, which no point is answered from": _COARSEST,
    "the angles of positions, which are computed": _ANGLES,
}

# (in the file, here); the first pattern that matches the beginning of a name is applied.
_HF_RENAMES = (
    (r"(detector_model\.)?vision_encoder\.backbone\.", "image_encoder.vision.backbone."),
    (r"(tracker_neck|vision_encoder\.neck)\.", "image_encoder.vision.neck."),
    (r"tracker_model\.", ""),
)
_RELEASED_RENAMES = (
    (r"detector\.backbone\.vision_backbone\.trunk\.", "image_encoder.vision.backbone."),
    (r"detector\.backbone\.vision_backbone\.sam2_convs\.", "image_encoder.vision.neck.fpn_layers."),
    (r"tracker\.", ""),
)
_RELEASED_ENCODER = (
    (r"\.backbone\.pos_embed$", ".backbone.embeddings.position_embeddings"),
    (r"\.backbone\.patch_embed\.proj\.", ".backbone.embeddings.patch_embeddings.projection."),
    (r"\.backbone\.ln_pre\.", ".backbone.layer_norm."),
    (r"\.backbone\.blocks\.(\d+)\.norm(\d)\.", r".backbone.layers.\1.layer_norm\2."),
    (r"\.backbone\.blocks\.(\d+)\.attn\.proj\.", r".backbone.layers.\1.attention.o_proj."),
    (r"\.backbone\.blocks\.(\d+)\.attn\.", r".backbone.layers.\1.attention."),
    (r"\.backbone\.blocks\.(\d+)\.", r".backbone.layers.\1."),
    (r"\.dconv_2x2(_0)?\.", ".scale_layers.0."),
    (r"\.dconv_2x2_1\.", ".scale_layers.2."),
    (r"\.conv_1x1\.", ".proj1."),
    (r"\.conv_3x3\.", ".proj2."),
)


def is_sam_3(names: Iterable[str]) -> bool:
    return any(name.endswith((_HF_TABLE, _TABLE)) for name in names)


def is_hugging_face(names: Iterable[str]) -> bool:
    return any(name.endswith(_HF_TABLE) for name in names)


def ours(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the model for points by our names, and what was dropped, one sentence a kind.

    Names that neither layout knows stay as they are, to be reported as unexpected.
    """
    kept, notes = dict(found), list[str]()
    for kind, pattern in _KINDS.items():
        gone = [name for name in kept if pattern.match(name)]
        for name in gone:
            del kept[name]
        if gone:
            notes.append(f"{kind} ({len(gone)}: {gone[0]} to {gone[-1]})")
    if is_hugging_face(found):
        encoder, rest = _split(_renamed(kept, _HF_RENAMES))
        return encoder | sam2_layouts.ours_of_hugging_face(rest), tuple(notes)
    encoder, rest = _split(_renamed(kept, _RELEASED_RENAMES))
    return _released_encoder(encoder) | sam2_layouts.ours_of_released(rest), tuple(notes)


def _renamed(tensors: Mapping[str, Tensor], renames: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        matching = ((pattern, new) for pattern, new in renames if re.match(pattern, name))
        pattern, new = next(matching, ("^", ""))
        renamed[re.sub(f"^{pattern}", new, name, count=1)] = tensor
    return renamed


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those of the image encoder, and the others."""
    encoder = {name: tensor for name, tensor in tensors.items() if name.startswith("image_encoder.vision.")}
    return encoder, {name: tensor for name, tensor in tensors.items() if name not in encoder}


def _released_encoder(encoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in encoder.items():
        for pattern, new in _RELEASED_ENCODER:
            name = re.sub(pattern, new, name)
        if ".attention.qkv." in name:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            renamed |= {name.replace(".qkv.", f".{letter}_proj."): part for letter, part in parts}
        elif name.endswith(".position_embeddings"):
            # The first row belongs to a token of the pretraining, which has no place on the map.
            tokens = tensor.shape[1]
            renamed[name] = tensor if isqrt(tokens) ** 2 == tokens else tensor[:, 1:]
        else:
            renamed[name] = tensor
    return renamed
