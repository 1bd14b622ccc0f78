"""The bundled model's function in the sizes of a larger one: weights for benchmarks where no released ones are at hand.

Channels are repeated, and what reads them is divided by how often (Net2Net, arXiv:1511.05641); further blocks add
next to nothing. With the same grid and whole multiples of channels and heads (ViT-B) the large network computes exactly
what the small one does; with others (ViT-L, ViT-H) a LayerNorm counts some channels once more than the rest, and masks
differ at their rims.
Tables of positions are stretched to a larger grid: the answers are then those of a trained model, if not of a good one.
Masks hang together and rounding is as small as in trained networks; random weights have neither.

A place says for each channel of the large model which one of the small model it repeats.
"""

from __future__ import annotations

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import SamConfig
from model.sam import Sam

SIZES = ("embed_dim", "depth", "heads", "input_side", "window", "decoder_dim", "decoder_mlp", "iou_head_dim")
BLOCK = re.compile(r"blocks\.(\d+)\.")
TABLES = re.compile(
    r"(pos_embed|rel_pos_[hw]|gaussian_matrix|_embed\.weight|point_embeddings\.\d\.weight|tokens?\.weight)$"
)
ADDS = re.compile(r"(attn\.proj|mlp\.lin2)\.(weight|bias)$")
"""What a block's two branches add to its input."""
NEXT_TO_NOTHING = 2.0**-20
"""What the further blocks' branches are scaled by. Not 0: products with zeros draw less power, and a GPU that may clock
higher for them would look faster than it is with trained weights."""


@torch.no_grad()
def widened(small: Sam, config: SamConfig) -> Sam:
    """A model of the larger sizes, in float32.

    raises  ValueError if `config` is smaller than the small model anywhere, or its decoder has other layers or heads
    """
    own = small.config
    if not isinstance(own, SamConfig):
        raise ValueError(f"{own.name} has no ViT to widen")
    less = [size for size in SIZES if getattr(config, size) < getattr(own, size)]
    if less or (config.decoder_depth, config.decoder_heads) != (own.decoder_depth, own.decoder_heads):
        raise ValueError(f"{config.name} is no wider {own.name}: {', '.join(less) or 'another decoder'}")
    large, state = Sam(config), small.state_dict()
    places = _Places(own, config)
    repeated = repeated_blocks(own, config)
    for name, target in large.state_dict().items():
        block = BLOCK.search(name)
        scale = 1.0
        if block:
            index, computes = repeated[int(block[1])]
            scale = 1.0 if computes or not ADDS.search(name) else NEXT_TO_NOTHING
            name = BLOCK.sub(f"blocks.{index}.", name)
        target.copy_(places.fill(name, state[name], target.shape) * scale)
    return large.eval()


def repeated_blocks(small: SamConfig, large: SamConfig) -> list[tuple[int, bool]]:
    """For each block of the large model: whose weights it takes, and whether it does that one's work.

    The small model's blocks come in their order, each at the next block of its kind (windows, or all tokens).

    raises  ValueError if not all of them find a place
    """
    repeated: list[tuple[int, bool]] = []
    turn = 0
    for index in range(large.depth):
        own_turn = turn < small.depth and (index in large.global_blocks) == (turn in small.global_blocks)
        repeated.append((turn if own_turn else index % small.depth, own_turn))
        turn += own_turn
    if turn < small.depth:
        raise ValueError(f"{large.name} is no wider {small.name}: its global blocks come in another order")
    return repeated


class _Places:
    """Which channel goes where, between two sets of sizes."""

    def __init__(self, small: SamConfig, large: SamConfig) -> None:
        self._small, self._large = small, large

    def fill(self, name: str, source: Tensor, shape: torch.Size) -> Tensor:
        """The tensor `name` of the large model, of that shape, from the small one's."""
        if TABLES.search(name):
            stretched = _stretch(source, shape)
            head_scale = math.sqrt(source.shape[-1] / shape[-1]) if "rel_pos" in name else 1.0
            return stretched[..., self._channels(name, source.shape[-1], shape[-1])] * head_scale
        rows = self._rows(name, source, shape)
        if source.dim() == 1:
            return source[rows] * self._row_scale(name, rows)
        inputs, outputs = (0, 1) if "output_upscaling" in name else (1, 0)
        columns = self._columns(name, source.shape[inputs], shape[inputs])
        filled = source.index_select(inputs, columns).index_select(outputs, rows)
        scale_rc = self._row_scale(name, rows)[:, None] / _repeats(columns)[None]
        scale_rc = scale_rc.t() if inputs == 0 else scale_rc
        return filled * scale_rc.reshape(*scale_rc.shape, *[1] * (filled.dim() - 2))

    def _rows(self, name: str, source: Tensor, shape: torch.Size) -> Tensor:
        dim = 1 if "output_upscaling" in name and source.dim() > 1 else 0
        if ".qkv." in name:
            heads = self._heads(name)
            return torch.cat([third * source.shape[0] // 3 + heads for third in range(3)])
        if re.search(r"attn.*\.[qkv]_proj\.", name):
            return self._heads(name)
        return self._channels(name, source.shape[dim], shape[dim])

    def _columns(self, name: str, small: int, large: int) -> Tensor:
        if re.search(r"attn.*\.(out_)?proj\.weight", name):
            return self._heads(name)
        return self._channels("image_encoder.blocks" if "neck.0" in name else name, small, large)

    def _heads(self, name: str) -> Tensor:
        """Places inside an attention: head by head."""
        counts = [self._head_sizes(name, config) for config in (self._small, self._large)]
        (small_heads, small_size), (heads, size) = counts
        return ((torch.arange(heads) % small_heads * small_size)[:, None] + torch.arange(size) % small_size).flatten()

    def _head_sizes(self, name: str, config: SamConfig) -> tuple[int, int]:
        """How many heads, and channels a head."""
        if name.startswith("image_encoder"):
            return config.heads, config.embed_dim // config.heads
        inner = config.decoder_dim if "self_attn" in name else config.decoder_dim // 2
        return config.decoder_heads, inner // config.decoder_heads

    def _channels(self, name: str, small: int, large: int) -> Tensor:
        """Places outside of attentions. Position encodings are sines, then cosines: halves stay halves."""
        if small == large:
            return torch.arange(large)
        if "gaussian" in name or (name.startswith("image_encoder") and "neck" not in name):
            return torch.arange(large) % small
        half = torch.arange(large // 2) % (small // 2)
        return torch.cat([half, small // 2 + half])

    def _row_scale(self, name: str, rows: Tensor) -> Tensor:
        """Queries make up for longer heads; a mask's weights for the channels that they are summed over."""
        scale = torch.ones(len(rows))
        query = slice(0, len(rows) // 3) if ".qkv." in name else slice(None) if ".q_proj." in name else slice(0, 0)
        (_, small_size), (_, size) = (self._head_sizes(name, config) for config in (self._small, self._large))
        repeated = _repeats(torch.arange(size) % small_size)
        scale[query] = (math.sqrt(size / small_size) / repeated).repeat(len(scale[query]) // size)
        if re.search(r"hypernetworks_mlps\.\d\.layers\.2", name):
            scale = scale / _repeats(rows)
        return scale


def _repeats(place: Tensor) -> Tensor:
    """How often the channel that each place repeats is there."""
    return torch.bincount(place)[place]


def _stretch(table: Tensor, shape: torch.Size) -> Tensor:
    """A table of positions for a larger grid; others as they are."""
    if table.dim() == 4:
        grid = F.interpolate(table.permute(0, 3, 1, 2), size=tuple(shape[1:3]), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)
    if table.shape[0] != shape[0]:
        return F.interpolate(table.t()[None], size=shape[0], mode="linear", align_corners=True)[0].t()
    return table
