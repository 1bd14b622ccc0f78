"""What trainers put around a model's weights: a table about the training, or a prefix before every key. It is taken off
where it can only mean one thing, and told.

Owns which tables and prefixes those are. Opens no file, and knows nothing of sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from torch import Tensor

from model.opening import WRAPPERS, CheckpointError, Opened

_IN_EVERY_MODEL = (
    "image_encoder.pos_embed",
    "vision_encoder.pos_embed",
    "image_encoder.patch_embed.seq.0.c.weight",
    "image_encoder.trunk.pos_embed",
    "vision_encoder.backbone.pos_embed",
    "image_encoder.trunk.body.stem.conv1.c.weight",
    "vision_encoder.backbone.timm_model.stem.conv1.c.weight",
    "detector.backbone.vision_backbone.trunk.pos_embed",
    "detector_model.vision_encoder.backbone.embeddings.position_embeddings",
)
"""A key of the released layout, what Hugging Face calls it, a key of TinyViT's encoder, and those of Hiera, RepViT and
SAM 3 in two layouts."""
_ROOTS = (
    *("image_encoder.", "vision_encoder.", "prompt_encoder.", "mask_decoder.", "shared_image_embedding."),
    *("sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed", "no_memory_embedding"),
)
_PREFIX = re.compile(r"((module|sam|model|_orig_mod)\.)*")
"""What data parallelism, adapters, trainers and compilation put before the names of what they wrap, however often."""


@dataclass(frozen=True)
class Bare:
    """tensors  under the names that the model itself gives them
    notes    what was taken off, one sentence each
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def take_off(opened: Opened) -> Bare:
    """The weights in what a file holds.

    A table `model` in a file is taken without a note, as it was before there were notes: they are part of a plan.

    raises  CheckpointError for two models, an unknown wrapper, and what is no table of tensors
    """
    content, expression, notes = opened.content, opened.expression, []
    key = _wrapper(content, expression)
    if key is not None and isinstance(content, Mapping):
        others = ", ".join(str(name) for name in content if name != key)
        notes.append(f"weights under the key {key!r}" + (f", without {others}" if others else ""))
        content, expression = content[key], f"{expression}[{key!r}]"
    if not is_table(content):
        raise CheckpointError("the checkpoint is not a table of named tensors; give the model's state dict")
    bare = _without_prefix(content, expression)
    return Bare(bare.tensors, (*notes, *bare.notes) if key != "model" or bare.notes else ())


def _wrapper(content: object, expression: str) -> str | None:
    """The key of the table with the weights; None if the content itself is it."""
    if not isinstance(content, Mapping) or _prefixes(content):
        return None
    tables = {key: table for key, table in content.items() if isinstance(table, Mapping)}
    models = [key for key, table in tables.items() if _prefixes(table)]
    known = [key for key in WRAPPERS if key in tables]
    found = models or known
    if len(found) > 1:
        named = ", ".join(repr(key) for key in found)
        cure = _cure(f"{expression}[{found[0]!r}]", "")
        raise CheckpointError(f"the checkpoint holds more than one model, under the keys {named}; take one: {cure}")
    if found and found[0] not in WRAPPERS:
        (prefix, *_) = _prefixes(tables[found[0]])
        also = f", behind the prefix {prefix!r}" if prefix else ""
        cure = _cure(f"{expression}[{found[0]!r}]", prefix)
        raise CheckpointError(
            f"the checkpoint is a trainer's, with its weights under the key {found[0]!r}{also}; {cure}"
        )
    return found[0] if found else None


def _without_prefix(table: Mapping[str, Tensor], expression: str) -> Bare:
    """Under the names without a prefix that all of them have, or all but some that are no part of a model."""
    prefixes = _prefixes(table)
    if not prefixes or prefixes == [""]:
        return Bare(dict(table))
    prefix = prefixes[0]
    if len(prefixes) > 1:
        named = ", ".join(repr(each) for each in prefixes)
        raise CheckpointError(
            f"the checkpoint holds more than one model, behind the prefixes {named}; take one: "
            + _cure(expression, prefix)
        )
    if not _PREFIX.fullmatch(prefix):
        raise CheckpointError(
            f"the checkpoint's keys carry the prefix {prefix!r}, as a wrapper writes them; {_cure(expression, prefix)}"
        )
    bare = {name.removeprefix(prefix): tensor for name, tensor in table.items() if name.startswith(prefix)}
    rest = {name: tensor for name, tensor in table.items() if not name.startswith(prefix)}
    without = [name for name in rest if name.startswith(_ROOTS)]
    if without:
        raise CheckpointError(
            f"some of the checkpoint's keys carry the prefix {prefix!r} and others of the model do not, for example "
            f"{without[0]}; give the state dict of one model"
        )
    return Bare(bare | rest, (f"prefix {prefix!r} of the keys",))


def _prefixes(names: Iterable[object]) -> list[str]:
    """What stands before the keys of a Segment Anything among these; empty if there are no such keys."""
    texts = [name for name in names if isinstance(name, str)]
    found = [name.removesuffix(known) for known in _IN_EVERY_MODEL for name in texts if name.endswith(known)]
    return list(dict.fromkeys(prefix for prefix in found if not prefix or prefix.endswith(".")))


def _cure(table: str, prefix: str) -> str:
    names = f"k.removeprefix({prefix!r}): v for k, v in c.items() if k.startswith({prefix!r})"
    bare = f"c = {table}; torch.save({{{names}}}, 'new.pth')" if prefix else f"torch.save({table}, 'new.pth')"
    modules = "torch, safetensors.torch" if "safetensors" in table else "torch"
    return f'save the bare weights: python -c "import {modules}; {bare}"'


def is_table(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether this is a table of named tensors and nothing else."""
    return isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
