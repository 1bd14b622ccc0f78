"""The ViT image encoder of Segment Anything: windowed and global attention with decomposed relative positions.

Module and parameter names are those of the released checkpoints (arXiv:2304.02643, appendix A; relative positions and
windows after arXiv:2203.16527). Does not know images or prompts.

Legend: B images, S input side, g tokens a side, C channels, H heads, d channels a head, w tokens a side of a window,
W windows, N tokens of a window, G heads of some windows, Q some of a head's queries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import SamConfig

PIECE_BYTES = 2**20
"""Attention scores made at once on a CPU: half of a core's second-level cache (measured best of 0.25 to 4 MiB)."""


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of a BCHW map, in float32."""

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = x_BCHW.float()
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
    """Multi-head self-attention within squares of tokens, biased by relative row and relative column."""

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.side = side
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, channels // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, channels // heads))

    def forward(self, x_BggC: Tensor) -> Tensor:
        """Over the whole grid if it is `side` tokens wide, else within windows of that side."""
        grid, w, H = x_BggC.shape[1], self.side, self.heads
        windows = split_windows(self.qkv(x_BggC), w, self.qkv.bias)
        q_WHNd, k_WHNd, v_WHNd = windows.reshape(len(windows), w * w, 3, H, -1).permute(2, 0, 3, 1, 4)
        by_row_WHNw, by_col_WHNw = self._relative_positions(q_WHNd)
        out_WHNd = biased_attention(q_WHNd, k_WHNd, v_WHNd, by_row_WHNw, by_col_WHNw)
        return self.proj(join_windows(out_WHNd.transpose(1, 2).reshape(-1, w, w, x_BggC.shape[3]), grid))

    def _relative_positions(self, q_WHNd: Tensor) -> tuple[Tensor, Tensor]:
        """What a query adds to its scores: by the row distance and by the column distance to each key."""
        w = self.side
        steps = torch.arange(w, device=q_WHNd.device)
        distance_ww = steps[:, None] - steps[None, :] + w - 1
        q_WHwwd = q_WHNd.unflatten(2, (w, w))
        by_row = torch.einsum("bnyxd,ykd->bnyxk", q_WHwwd, self.rel_pos_h[distance_ww])
        by_col = torch.einsum("bnyxd,xkd->bnyxk", q_WHwwd, self.rel_pos_w[distance_ww])
        return by_row.flatten(2, 3), by_col.flatten(2, 3)


def biased_attention(
    q_WHNd: Tensor, k_WHNd: Tensor, v_WHNd: Tensor, by_row_WHNw: Tensor, by_col_WHNw: Tensor
) -> Tensor:
    """(W, H, N, d): attention whose score of a query and a key gains the bias of the key's row and of its column.

    Scores are N x N a head: for a grid of 64 x 64 tokens 64 MiB. They are made in pieces that stay in a core's cache,
    a third of the CPU time of one piece.
    """
    W, H, N, d = q_WHNd.shape
    per_query = N * q_WHNd.element_size()
    budget = PIECE_BYTES if q_WHNd.device.type == "cpu" and not torch.is_grad_enabled() else W * H * N * per_query
    queries = min(N, max(1, budget // per_query))
    heads = max(1, budget // (N * per_query)) if queries == N else 1
    columns = [x.reshape(W * H, N, -1) for x in (q_WHNd, k_WHNd, v_WHNd, by_row_WHNw, by_col_WHNw)]
    pieces = [
        torch.cat([_piece(q, k, v, row, col, slice(at, at + queries)) for at in range(0, N, queries)], dim=1)
        for q, k, v, row, col in zip(*(column.split(heads) for column in columns), strict=True)
    ]
    return torch.cat(pieces).reshape(W, H, N, d)


def _piece(q_GNd: Tensor, k_GNd: Tensor, v_GNd: Tensor, by_row_GNw: Tensor, by_col_GNw: Tensor, own: slice) -> Tensor:
    """The attention of some heads' `own` queries."""
    bias_GQN = (by_row_GNw[:, own, :, None] + by_col_GNw[:, own, None, :]).flatten(2)
    return F.scaled_dot_product_attention(q_GNd[None, :, own], k_GNd[None], v_GNd[None], attn_mask=bias_GQN[None])[0]


class Block(nn.Module):
    """A transformer block; `window` 0 attends over all tokens."""

    def __init__(self, config: SamConfig, *, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = Attention(config.embed_dim, config.heads, window or config.grid_side)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = MLP(config.embed_dim, config.mlp_ratio * config.embed_dim)

    def forward(self, x_BggC: Tensor) -> Tensor:
        x_BggC = x_BggC + self.attn(self.norm1(x_BggC))
        return x_BggC + self.mlp(self.norm2(x_BggC))


def split_windows(x_BggC: Tensor, window: int, padding_C: Tensor) -> Tensor:
    """(B, g, g, C) -> (B * windows, w, w, C); the grid is padded to whole windows."""
    B, side, _, C = x_BggC.shape
    n = -(-side // window)
    if n * window > side:
        padded = padding_C.to(x_BggC.dtype).expand(B, n * window, n * window, C).clone()
        padded[:, :side, :side] = x_BggC
        x_BggC = padded
    return x_BggC.reshape(B, n, window, n, window, C).transpose(2, 3).reshape(B * n * n, window, window, C)


def join_windows(x_WwwC: Tensor, side: int) -> Tensor:
    """The inverse of `split_windows` for a grid of that side; padding is cut off."""
    window, C = x_WwwC.shape[2:]
    n = -(-side // window)
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
