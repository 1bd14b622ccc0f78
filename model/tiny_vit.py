"""The TinyViT image encoder of MobileSAM and TinySAM: convolutions first, then attention within windows.

Module and parameter names are those of the released checkpoints (arXiv:2207.10666, section 4; as MobileSAM changed it,
arXiv:2306.14289). Only for inference: batch norms use their running statistics. Maps are kept with channels last, so
that a map of an attention's tokens and that of a convolution are the same bytes.

Legend: B images, S input side, s side of a stage's map, C channels, K hidden channels, H heads, d channels a head,
w tokens a side of a window, W windows, N tokens of a window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import TinyVitConfig
from model.image_encoder import MLP_TOKENS, LayerNorm2d, in_pieces, join_windows, split_windows

CLASSIFIER = ("norm_head.weight", "norm_head.bias", "head.weight", "head.bias")
"""Tensors of the ImageNet classifier that the released files still hold; no image passes them."""


class BatchNorm(nn.Module):
    """The tensors of a batch norm, without the counter of batches, which no result depends on."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


class ConvNorm(nn.Module):
    """A convolution without bias, and the batch norm after it, as one convolution."""

    EPS = 1e-5

    def __init__(self, channels: int, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = BatchNorm(out)

    def forward(self, x_BCss: Tensor) -> Tensor:
        c, dtype = self.c, self.c.weight.dtype
        weight, bias_C = (each.to(dtype) for each in self.folded())
        if c.kernel_size == (1, 1):
            # As a matrix product, for which no pixel has to move (an eighth of the encoder on a CPU).
            return F.linear(x_BCss.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias_C).permute(0, 3, 1, 2)
        return F.conv2d(x_BCss, weight, bias_C, c.stride, c.padding, groups=c.groups)

    def folded(self) -> tuple[Tensor, Tensor]:
        """float64: the weight and the bias of the one convolution."""
        c, bn = self.c, self.bn
        scale_C = bn.weight.double() / (bn.running_var.double() + self.EPS).sqrt()
        weight = c.weight.double() * scale_C[:, None, None, None]
        return weight, bn.bias.double() - bn.running_mean.double() * scale_C


class PatchEmbed(nn.Module):
    """To a quarter of the input's side, in two steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, channels // 2, kernel=3, stride=2),
            nn.GELU(),
            ConvNorm(channels // 2, channels, kernel=3, stride=2),
        )

    def forward(self, images_B3SS: Tensor) -> Tensor:
        return self.seq(images_B3SS)


class ConvBlock(nn.Module):
    """Of stage 0: every position alone, its neighbours in each channel, every position alone."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, kernel=3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, x_BCss: Tensor) -> Tensor:
        hidden_BKss = F.gelu(self.conv2(F.gelu(self.conv1(x_BCss))))
        return F.gelu(self.conv3(hidden_BKss) + x_BCss)


class Downsample(nn.Module):
    """To the next stage's channels, and to its side with the stride in the middle."""

    def __init__(self, channels: int, out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, out)
        self.conv2 = ConvNorm(out, out, kernel=3, stride=stride, groups=out)
        self.conv3 = ConvNorm(out, out)

    def forward(self, x_BCss: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x_BCss)))))


class Attention(nn.Module):
    """Multi-head self-attention within windows, biased by how far apart two tokens are in rows and in columns.

    The bias of a head stands once for each distance, rows first; queries, keys and values of a head lie side by side.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, x_BssC: Tensor) -> Tensor:
        """The released code pads the map to whole windows before the norm, which makes its bias of such a token."""
        side, w = x_BssC.shape[1], self.window
        padding_C = F.linear(self.norm.bias, self.qkv.weight, self.qkv.bias)
        windows = split_windows(self.qkv(self.norm(x_BssC)), w, padding_C)
        q, k, v = windows.reshape(len(windows), w * w, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        bias_1HNN = self.attention_biases[None, :, _distances(w, x_BssC.device)].to(q.dtype)
        out_WHNd = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_1HNN)
        return join_windows(self.proj(out_WHNd.transpose(1, 2).reshape(-1, w, w, x_BssC.shape[3])), side)


def _distances(window: int, device: torch.device) -> Tensor:
    """(N, N): where the bias of two tokens of a window stands."""
    row_N = torch.arange(window, device=device).repeat_interleave(window)
    column_N = torch.arange(window, device=device).repeat(window)
    return (row_N[:, None] - row_N).abs() * window + (column_N[:, None] - column_N).abs()


class MLP(nn.Module):
    """LayerNorm and two linear layers with GELU, some tokens after the other on a CPU (see image_encoder.MLP)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x_BssC: Tensor) -> Tensor:
        tokens_TC = x_BssC.flatten(0, 2)
        size = MLP_TOKENS if in_pieces(x_BssC) else len(tokens_TC)
        parts = [self.fc2(F.gelu(self.fc1(self.norm(part)))) for part in tokens_TC.split(size)]
        return torch.cat(parts).reshape(x_BssC.shape)


class AttentionBlock(nn.Module):
    """Of stages 1 to 3: attention, neighbours in each channel, MLP. The middle one has no way around it."""

    def __init__(self, channels: int, heads: int, *, window: int, hidden: int) -> None:
        super().__init__()
        self.attn = Attention(channels, heads, window)
        self.mlp = MLP(channels, hidden)
        self.local_conv = ConvNorm(channels, channels, kernel=3, groups=channels)

    def forward(self, x_BCss: Tensor) -> Tensor:
        x_BssC = x_BCss.permute(0, 2, 3, 1)
        x_BssC = x_BssC + self.attn(x_BssC)
        x_BssC = self.local_conv(x_BssC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (x_BssC + self.mlp(x_BssC)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks on maps of one size, and the way to the next one's."""

    def __init__(self, config: TinyVitConfig, index: int) -> None:
        super().__init__()
        channels = config.dims[index]
        hidden = config.expansion * channels
        if index == 0:
            blocks = [ConvBlock(channels, hidden) for _ in range(config.depths[0])]
        else:
            heads, window = config.heads[index - 1], config.windows[index - 1]
            blocks = [
                AttentionBlock(channels, heads, window=window, hidden=hidden) for _ in range(config.depths[index])
            ]
        self.blocks = nn.ModuleList(blocks)
        if index < len(config.strides):
            self.downsample = Downsample(channels, config.dims[index + 1], stride=config.strides[index])
        else:
            self.downsample = nn.Identity()

    def forward(self, x_BCss: Tensor) -> Tensor:
        for block in self.blocks:
            x_BCss = block(x_BCss)
        return self.downsample(x_BCss)


class TinyVit(nn.Module):
    """Normalised, padded images -> image embeddings."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.dims[0])
        self.layers = nn.ModuleList(Stage(config, index) for index in range(len(config.dims)))
        self.neck = nn.Sequential(
            nn.Conv2d(config.dims[-1], config.decoder_dim, kernel_size=1, bias=False),
            LayerNorm2d(config.decoder_dim),
            nn.Conv2d(config.decoder_dim, config.decoder_dim, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(config.decoder_dim),
        )

    def forward(self, images_B3SS: Tensor) -> Tensor:
        """(B, 3, S, S) float -> (B, C, g, g) with C = decoder_dim."""
        x_BCss = self.patch_embed(images_B3SS.contiguous(memory_format=torch.channels_last))
        for stage in self.layers:
            x_BCss = stage(x_BCss)
        return self.neck(x_BCss).contiguous()
