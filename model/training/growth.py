"""A trained model in a larger one: more input pixels, more blocks. It starts with nearly the same masks.

Legend: g tokens a side, C channels, T entries of a table of distances, d channels a head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import ModelConfig, SamConfig
from model.opening import CheckpointError
from model.sam import Sam

BLOCK = "image_encoder.blocks."


def grown(start: Sam, config: ModelConfig) -> Sam:
    """A model of these sizes that begins with the weights of `start`.

    A depth that is a multiple puts new blocks before each old one. They change nothing until they have learned.
    Positions are interpolated; tables of relative positions keep their distances in tokens, and those beyond have the
    farthest's.
    raises  CheckpointError if another size differs, or an old block would see another neighbourhood
    """
    sam = Sam(config)
    wanted, found = sam.state_dict(), _spread(start, config)
    for name in new_outputs(wanted, found):
        found[name] = torch.zeros_like(wanted[name])
    fitted = {name: _fitted(name, found[name], value) if name in found else value for name, value in wanted.items()}
    sam.load_state_dict(fitted)
    return sam


def new_outputs(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """The last layers of the new blocks' branches: while they are 0, such a block hands on what it was given."""
    return [n for n in wanted if n not in found and BLOCK in n and (".attn.proj." in n or ".mlp.lin2." in n)]


def _spread(start: Sam, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of `start` under the names that they have in the deeper model."""
    old = start.config
    if not isinstance(old, SamConfig) or not isinstance(config, SamConfig) or config.depth % old.depth:
        raise CheckpointError("a training starts from a plain ViT whose depth divides that of its own model")
    times = config.depth // old.depth
    kept = [index * times + times - 1 for index in range(old.depth)]
    if [kept[index] for index in old.global_blocks] != [index for index in config.global_blocks if index in kept]:
        raise CheckpointError(
            "blocks that see all tokens would become blocks that see a window, or the other way round"
        )

    def renamed(name: str) -> str:
        if not name.startswith(BLOCK):
            return name
        index, _, rest = name.removeprefix(BLOCK).partition(".")
        return f"{BLOCK}{kept[int(index)]}.{rest}"

    return {renamed(name): value for name, value in start.state_dict().items()}


def _fitted(name: str, value: Tensor, wanted: Tensor) -> Tensor:
    if value.shape == wanted.shape:
        return value
    if name.endswith(".pos_embed"):
        maps = value.permute(0, 3, 1, 2)
        enlarged = F.interpolate(maps, size=wanted.shape[1:3], mode="bicubic", align_corners=False)
        return enlarged.permute(0, 2, 3, 1)
    if ".rel_pos_" in name and value.shape[1] == wanted.shape[1]:
        farthest = len(value) // 2
        distances_T = (torch.arange(len(wanted)) - len(wanted) // 2).clamp(-farthest, farthest)
        return value[distances_T + farthest]
    raise CheckpointError(f"{name} is {tuple(value.shape)} in the weights to start from and {tuple(wanted.shape)} here")
