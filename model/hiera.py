"""The Hiera image encoder of SAM 2: attention within windows on four maps, each half as wide as the one before.

Module and parameter names are those of the released checkpoints (arXiv:2306.00989; positions and windows after
arXiv:2311.05613; the neck after arXiv:2408.00714, section 4). Maps are kept with channels last.

Legend: B images, S input side, s side of a stage's map, g cells of the embedding a side, C channels, D of the decoder,
H heads, d channels a head, w tokens a side of a window, W windows, N tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attention
from model.config import HieraConfig
from model.image_encoder import MLP_TOKENS, in_pieces, join_windows, split_windows


class Maps(NamedTuple):
    """What the decoder takes from the encoder, (B, D, side, side) each.

    embedding_BDgg  one cell for 16 pixels
    fine_0, fine_1  one cell for 4, and for 8
    """

    embedding_BDgg: Tensor
    fine_0: Tensor
    fine_1: Tensor


class PatchEmbed(nn.Module):
    """To a quarter of the input's side; patches overlap."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, kernel_size=7, stride=4, padding=3)

    def forward(self, images_B3SS: Tensor) -> Tensor:
        return self.proj(images_B3SS).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Multi-head self-attention within squares of tokens. Where it halves the map, a query is the maximum of four."""

    def __init__(self, channels: int, out: int, heads: int, *, halves: bool) -> None:
        super().__init__()
        self.heads, self.halves = heads, halves
        self.qkv = nn.Linear(channels, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x_BssC: Tensor, window: int) -> Tensor:
        """Tokens beyond the map are zeros, which the projection's bias makes part of the attention."""
        side = x_BssC.shape[1]
        qkv_WwwC = split_windows(self.qkv(x_BssC), window, self.qkv.bias)
        q_WwwC, k_WwwC, v_WwwC = qkv_WwwC.chunk(3, dim=3)
        if self.halves:
            q_WwwC, side, window = halved(q_WwwC), side // 2, window // 2
        q, k, v = (x.flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (q_WwwC, k_WwwC, v_WwwC))
        out_WNC = attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(join_windows(out_WNC.unflatten(1, (window, window)), side))


def halved(x_BssC: Tensor) -> Tensor:
    """The maximum of two by two cells. Torch goes back through its pooling faster: a seventh of a training step.
    (Of equal values one gets all of the gradient.)"""
    if torch.is_grad_enabled():
        return F.max_pool2d(x_BssC.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    upper, lower = x_BssC[:, ::2], x_BssC[:, 1::2]
    rows = torch.maximum(upper, lower)
    return torch.maximum(rows[:, :, ::2], rows[:, :, 1::2])


class MLP(nn.Module):
    """Two linear layers with GELU, some tokens after the other on a CPU (see image_encoder.MLP)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)])

    def forward(self, x_BssC: Tensor) -> Tensor:
        tokens_TC = x_BssC.flatten(0, 2)
        size = MLP_TOKENS if in_pieces(x_BssC) else len(tokens_TC)
        parts = [self.layers[1](F.gelu(self.layers[0](part))) for part in tokens_TC.split(size)]
        return torch.cat(parts).reshape(x_BssC.shape)


class Block(nn.Module):
    """A transformer block; `window` 0 attends over all tokens. The first of a stage has that stage's channels at its
    end, and halves the map."""

    def __init__(self, channels: int, out: int, heads: int, *, window: int) -> None:
        super().__init__()
        self.window, self.halves = window, channels != out
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, out, heads, halves=self.halves)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        self.mlp = MLP(out)
        self.proj = nn.Linear(channels, out) if self.halves else None

    def forward(self, x_BssC: Tensor) -> Tensor:
        normed = self.norm1(x_BssC)
        around = x_BssC if self.proj is None else halved(self.proj(normed))
        x_BssC = around + self.attn(normed, self.window or normed.shape[1])
        return x_BssC + self.mlp(self.norm2(x_BssC))


def _blocks(config: HieraConfig) -> Iterator[Block]:
    """The first block of a stage still has the window of the stage before."""
    before, index = (config.dims[0], config.windows[0]), 0
    for stage, (channels, depth, window) in enumerate(zip(config.dims, config.depths, config.windows, strict=True)):
        for _ in range(depth):
            entered, side = before
            heads = config.heads * 2**stage
            yield Block(entered, channels, heads, window=0 if index in config.global_blocks else side)
            before, index = (channels, window), index + 1


class Trunk(nn.Module):
    """Normalised images -> the map at the end of each stage."""

    positions_1ssC: Tensor

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.dims[0])
        self.pos_embed = nn.Parameter(torch.zeros(1, config.dims[0], config.background, config.background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, config.dims[0], config.windows[0], config.windows[0]))
        self.blocks = nn.ModuleList(_blocks(config))
        self._side = config.mask_side
        ends = [sum(config.depths[: stage + 1]) - 1 for stage in range(len(config.depths))]
        self._ends = frozenset(ends)
        self.register_buffer("positions_1ssC", torch.zeros(1, self._side, self._side, config.dims[0]), persistent=False)
        self.register_load_state_dict_post_hook(lambda trunk, _: trunk.place())

    def place(self) -> None:
        """Make the positions anew from the two tables, after these have changed. Loading does."""
        with torch.no_grad():
            self.positions_1ssC = self._positions()

    def _positions(self) -> Tensor:
        """One table enlarged, the other repeated."""
        enlarged = F.interpolate(self.pos_embed, size=(self._side, self._side), mode="bicubic")
        times = self._side // self.pos_embed_window.shape[2]
        return (enlarged + self.pos_embed_window.tile(1, 1, times, times)).permute(0, 2, 3, 1).contiguous()

    def forward(self, images_B3SS: Tensor) -> list[Tensor]:
        """(B, s, s, C) each."""
        positions_1ssC = self._positions() if torch.is_grad_enabled() else self.positions_1ssC
        x_BssC = self.patch_embed(images_B3SS) + positions_1ssC
        stages: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x_BssC = block(x_BssC)
            if index in self._ends:
                stages.append(x_BssC)
        return stages


class Lateral(nn.Module):
    """One stage's map in the decoder's channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel_size=1)

    def forward(self, x_BssC: Tensor) -> Tensor:
        """(B, D, s, s)"""
        return F.linear(x_BssC, self.conv.weight[:, :, 0, 0], self.conv.bias).permute(0, 3, 1, 2)


class Neck(nn.Module):
    """A convolution for each stage, the last stage's first."""

    def __init__(self, dims: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Lateral(channels, out) for channels in reversed(dims))

    def forward(self, stages: list[Tensor]) -> Maps:
        """The coarsest map is only seen through the embedding."""
        finest, fine, middle, coarsest = (conv(stage) for conv, stage in zip(self.convs[::-1], stages, strict=True))
        return Maps(middle + F.interpolate(coarsest, scale_factor=2.0, mode="nearest"), finest, fine)


class Hiera(nn.Module):
    """Normalised images of the input's side -> maps for the decoder."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.trunk = Trunk(config)
        self.neck = Neck(config.dims, config.decoder_dim)

    def forward(self, images_B3SS: Tensor) -> Maps:
        return self.neck(self.trunk(images_B3SS))
