"""The ViT image encoder of Segment Anything: windowed and global attention with decomposed relative positions.

Module and parameter names are those of the released checkpoints (arXiv:2304.02643, appendix A; relative positions and
windows after arXiv:2203.16527). Does not know images or prompts.

Legend: B images, S input side, g tokens a side, C channels, H heads, d channels a head, w window side, N tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import SamConfig


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of a BCHW map."""

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        centred = x_BCHW - x_BCHW.mean(1, keepdim=True)
        normed = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * normed + self.bias[:, None, None]


class PatchEmbed(nn.Module):
    """One token per patch."""

    def __init__(self, patch: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, kernel_size=patch, stride=patch)

    def forward(self, images_B3SS: Tensor) -> Tensor:
        return self.proj(images_B3SS).permute(0, 2, 3, 1)


class MLP(nn.Module):
    """Two linear layers with GELU."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))


class Attention(nn.Module):
    """Multi-head self-attention over a square of tokens, biased by relative row and relative column."""

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, channels // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, channels // heads))

    def forward(self, x_BssC: Tensor) -> Tensor:
        B, side, _, C = x_BssC.shape
        qkv = self.qkv(x_BssC).reshape(B, side * side, 3, self.heads, C // self.heads)
        q_BHNd, k_BHNd, v_BHNd = qkv.permute(2, 0, 3, 1, 4)
        bias_BHNN = self._relative_position_bias(q_BHNd, side)
        out_BHNd = F.scaled_dot_product_attention(q_BHNd, k_BHNd, v_BHNd, attn_mask=bias_BHNN)
        return self.proj(out_BHNd.transpose(1, 2).reshape(B, side, side, C))

    def _relative_position_bias(self, q_BHNd: Tensor, side: int) -> Tensor:
        """What a query adds to its scores: by the row distance and by the column distance to each key."""
        B, H, N, d = q_BHNd.shape
        steps = torch.arange(side, device=q_BHNd.device)
        distance_ss = steps[:, None] - steps[None, :] + side - 1
        q_BHssd = q_BHNd.reshape(B, H, side, side, d)
        by_row = torch.einsum("bnyxd,ykd->bnyxk", q_BHssd, self.rel_pos_h[distance_ss])
        by_col = torch.einsum("bnyxd,xkd->bnyxk", q_BHssd, self.rel_pos_w[distance_ss])
        return (by_row[..., :, None] + by_col[..., None, :]).reshape(B, H, N, N)


class Block(nn.Module):
    """A transformer block; `window` 0 attends over all tokens."""

    def __init__(self, config: SamConfig, *, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = Attention(config.embed_dim, config.heads, window or config.grid_side)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = MLP(config.embed_dim, config.mlp_ratio * config.embed_dim)

    def forward(self, x_BggC: Tensor) -> Tensor:
        side = x_BggC.shape[1]
        attended = self.norm1(x_BggC)
        if self.window:
            attended = join_windows(self.attn(split_windows(attended, self.window)), self.window, side)
        else:
            attended = self.attn(attended)
        x_BggC = x_BggC + attended
        return x_BggC + self.mlp(self.norm2(x_BggC))


def split_windows(x_BggC: Tensor, window: int) -> Tensor:
    """(B, g, g, C) -> (B * windows, w, w, C); the grid is padded with zeros to whole windows."""
    B, side, _, C = x_BggC.shape
    pad = -side % window
    x = F.pad(x_BggC, (0, 0, 0, pad, 0, pad))
    n = (side + pad) // window
    return x.reshape(B, n, window, n, window, C).transpose(2, 3).reshape(B * n * n, window, window, C)


def join_windows(x_WwwC: Tensor, window: int, side: int) -> Tensor:
    """The inverse of `split_windows`; padding is cut off."""
    n = -(-side // window)
    C = x_WwwC.shape[-1]
    x = x_WwwC.reshape(-1, n, n, window, window, C).transpose(2, 3)
    return x.reshape(-1, n * window, n * window, C)[:, :side, :side]


class ImageEncoder(nn.Module):
    """Normalised, padded images -> image embeddings."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        side = config.grid_side
        self.patch_embed = PatchEmbed(config.patch, config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config, window=0 if index in config.global_blocks else config.window) for index in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.embed_dim, config.decoder_dim, kernel_size=1, bias=False),
            LayerNorm2d(config.decoder_dim),
            nn.Conv2d(config.decoder_dim, config.decoder_dim, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(config.decoder_dim),
        )

    def forward(self, images_B3SS: Tensor) -> Tensor:
        """(B, 3, S, S) float -> (B, C, g, g) with C = decoder_dim."""
        x_BggC = self.patch_embed(images_B3SS) + self.pos_embed
        for block in self.blocks:
            x_BggC = block(x_BggC)
        return self.neck(x_BggC.permute(0, 3, 1, 2))
