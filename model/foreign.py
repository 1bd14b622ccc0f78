"""Files that are often given for a Segment Anything of a family that is read here, and are none: known by their names.

Owns these signs and the sentence for each. A file that no sign fits is checked name by name against the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ADAPTER = re.compile(r"(^|\.)(w_[ab]_\d+|lora_(a|b|up|down)|linear_[ab]_[qv])(\.|$)", re.IGNORECASE)
_DETECTOR, _TRACKER = re.compile(r"detector(_model)?\."), re.compile(r"tracker(_model)?\.(sam_)?mask_decoder\.")
_OTHER_MODELS = (
    (
        r"(^|\.)tracker\.model\.interactive_|(^|\.)interactive_sam_",
        "SAM 3.1's multiplex file, whose decoder takes no points as this program asks them",
    ),
    (r"(^|\.)mask_decoder\.(hf_|compress_vit_feat|embedding_(encoder|maskfeature))", "SAM-HQ"),
    (r"(^|\.)image_encoder\.backbone\.", "EfficientViT-SAM or another model with an encoder of its own"),
)


def foreign(names: Iterable[str], *, known: Iterable[str]) -> str:
    """Empty for a file that may be a model of `known`; else what it is, and what to do.

    names  the keys of its tensors
    """
    names = list(names)
    for sign, what in _OTHER_MODELS:
        if any(re.search(sign, name) for name in names):
            return f"the checkpoint is {what}, which is not read here; choose one of {', '.join(known)} and its file"
    if any(_DETECTOR.match(name) for name in names) and not any(_TRACKER.match(name) for name in names):
        return (
            "the checkpoint is SAM 3's detector alone, which is asked with words; points need the tracker's decoder "
            "beside it: give the whole model.safetensors or sam3.pt of facebook/sam3"
        )
    adapters = [name for name in names if _ADAPTER.search(name)]
    if not adapters:
        return ""
    if any(re.search(r"encoder\.(blocks|layers)\.\d", name) for name in names if name not in adapters):
        what = f"the checkpoint has LoRA layers that are not merged into the model ({adapters[0]})"
    else:
        what = f"the checkpoint is a LoRA adapter alone, without its model ({adapters[0]})"
    return (
        f"{what}; merge it with the program that trained it (merge_and_unload() in PEFT; W_q += B A and W_v += B A for "
        "w_a and w_b), save the model's state_dict() and give that file"
    )
