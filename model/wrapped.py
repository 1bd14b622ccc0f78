"""What trainers put around a model's weights: a table about the training, or a prefix before every key.

Owns how it is recognised and the sentence that says how to take it off. Opens no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeGuard

from torch import Tensor

TORCH_FILE = "torch.load('old.pth', weights_only=True)"
SAFETENSORS_FILE = "safetensors.torch.load_file('old.safetensors')"
_IN_EVERY_MODEL = ("image_encoder.pos_embed", "vision_encoder.pos_embed")
"""A key of the released layout, and what Hugging Face calls it."""


def wrapping(content: object, *, opened: str) -> str:
    """Empty if `content` is as it should be; else what is around the weights, and one line of Python that takes it off.

    opened  the expression that gives `content`, with TORCH_FILE or SAFETENSORS_FILE in it
    """
    if not isinstance(content, Mapping):
        return ""
    prefix = _prefix(content)
    if prefix:
        return f"the checkpoint's keys carry the prefix {prefix!r}, as a wrapper writes them; {_cure(opened, prefix)}"
    for key, table in content.items():
        if isinstance(table, Mapping) and _prefix(table) is not None:
            prefix = _prefix(table) or ""
            also = f", behind the prefix {prefix!r}" if prefix else ""
            cure = _cure(f"{opened}[{key!r}]", prefix)
            return f"the checkpoint is a trainer's, with its weights under the key {key!r}{also}; {cure}"
    return ""


def _prefix(names: Iterable[object]) -> str | None:
    """What stands before the keys of Segment Anything among these; None if there are no such keys."""
    for name in names:
        for known in _IN_EVERY_MODEL:
            if isinstance(name, str) and name.endswith(known):
                return name.removesuffix(known)
    return None


def _cure(table: str, prefix: str) -> str:
    bare = f"{{k.removeprefix({prefix!r}): v for k, v in {table}.items()}}" if prefix else table
    modules = "torch, safetensors.torch" if SAFETENSORS_FILE in table else "torch"
    return f"save the bare weights: python -c \"import {modules}; torch.save({bare}, 'new.pth')\""


def is_table(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether this is a table of named tensors and nothing else."""
    return isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
