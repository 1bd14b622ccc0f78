"""The ViT image encoder of Segment Anything: windowed and global attention with decomposed relative positions.

Module and parameter names are those of the released checkpoints (arXiv:2304.02643, appendix A; relative positions and
windows after arXiv:2203.16527). Takes images that are resized, normalised and padded (`segmenter`, `sam`).

Legend: B images, S input side, g tokens a side, C channels, H heads, d channels a head, w tokens a side of a window,
W windows, N tokens of a window, Q some of a head's queries, T tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import SamConfig

PIECE_BYTES = 2**20
"""Attention scores made at once on a CPU: half of a core's second-level cache (measured best of 0.25 to 4 MiB)."""
MLP_TOKENS = 512
"""Tokens in the MLP at once on a CPU (measured best of 64 to 4,096)."""


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of a BCHW map, in float32 or better."""

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if x_BCHW.dtype is not torch.float64:
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

    def forward(self, x_BggC: Tensor) -> Tensor:
        """Some tokens after the other on a CPU, so that the hidden layer stays in cache (an eighth of the time)."""
        tokens_TC = x_BggC.flatten(0, 2)
        size = MLP_TOKENS if in_pieces(x_BggC) else len(tokens_TC)
        return torch.cat([self.lin2(F.gelu(self.lin1(part))) for part in tokens_TC.split(size)]).reshape(x_BggC.shape)


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
        qkv_3WHNd = windows.reshape(len(windows), w * w, 3, H, -1).permute(2, 0, 3, 1, 4)
        steps = torch.arange(w, device=x_BggC.device)
        distance_ww = steps[:, None] - steps[None, :] + w - 1
        out_WNHd = biased_attention(qkv_3WHNd, self.rel_pos_h[distance_ww], self.rel_pos_w[distance_ww])
        return self.proj(join_windows(out_WNHd.reshape(-1, w, w, x_BggC.shape[3]), grid))


def biased_attention(qkv_3WHNd: Tensor, by_row_wwd: Tensor, by_col_wwd: Tensor) -> Tensor:
    """(W, N, H, d): attention whose score of a query and a key gains what the query makes of the distance between them
    in rows, and in columns.

    Scores are N x N a head: for a grid of 64 x 64 tokens 64 MiB. On a CPU they are made for some heads of a window, or
    some queries of a head, at a time, so that they stay in a core's cache: a third of the time of one piece.

    by_row_wwd, by_col_wwd  what a query is multiplied with for each row (column) of its own and of the key
    """
    _, W, H, N, d = qkv_3WHNd.shape
    if not in_pieces(qkv_3WHNd):
        return _attend(qkv_3WHNd, by_row_wwd, by_col_wwd, queries=N).transpose(1, 2)
    per_query = N * qkv_3WHNd.element_size()
    queries = min(N, max(1, PIECE_BYTES // per_query))
    heads = max(1, PIECE_BYTES // (N * per_query)) if queries == N else 1
    out_WNHd = qkv_3WHNd.new_empty(W, N, H, d)
    for window in range(W):
        for start in range(0, H, heads):
            part = qkv_3WHNd[:, window : window + 1, start : start + heads].contiguous()
            attended = _attend(part, by_row_wwd, by_col_wwd, queries=queries)
            out_WNHd[window : window + 1, :, start : start + heads] = attended.transpose(1, 2)
    return out_WNHd


def _attend(qkv_3WHNd: Tensor, by_row_wwd: Tensor, by_col_wwd: Tensor, *, queries: int) -> Tensor:
    """(W, H, N, d): so many queries at a time."""
    q, k, v = qkv_3WHNd
    q_WHwwd = q.unflatten(2, by_row_wwd.shape[:2])
    by_row_WHNw = torch.einsum("bnyxd,ykd->bnyxk", q_WHwwd, by_row_wwd).flatten(2, 3)
    by_col_WHNw = torch.einsum("bnyxd,xkd->bnyxk", q_WHwwd, by_col_wwd).flatten(2, 3)
    pieces = []
    for start in range(0, q.shape[2], queries):
        own = slice(start, start + queries)
        bias_WHQN = (by_row_WHNw[:, :, own, :, None] + by_col_WHNw[:, :, own, None, :]).flatten(3)
        pieces.append(F.scaled_dot_product_attention(q[:, :, own], k, v, attn_mask=bias_WHQN))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def in_pieces(x: Tensor) -> bool:
    """Whether work is cut to fit a cache: on a CPU; a training would keep every piece."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


class Block(nn.Module):
    """A transformer block; `window` 0 attends over all tokens."""

    def __init__(self, config: SamConfig, *, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = Attention(config.embed_dim, config.heads, window or config.grid_side)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = MLP(config.embed_dim, config.mlp_channels)

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
