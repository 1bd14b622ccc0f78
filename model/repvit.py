"""The RepViT image encoder of EdgeTAM: convolutions alone, on four maps, each half as wide as the one before.

Module and parameter names are those of the released checkpoint (arXiv:2307.09283; EdgeTAM: arXiv:2501.07256), whose
neck is SAM 2's. Only for inference: batch norms use their running statistics.

Legend: B images, S input side, s side of a stage's map, C channels, K hidden channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import RepVitConfig
from model.hiera import Maps, Neck
from model.tiny_vit import ConvNorm

SQUEEZED = 4
"""Channels of a map's squeezed mean are so many times fewer, rounded to eights."""


class Stem(nn.Module):
    """To a quarter of the input's side, in two steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels // 2, kernel=3, stride=2)
        self.conv2 = ConvNorm(channels // 2, channels, kernel=3, stride=2)

    def forward(self, images_B3SS: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(images_B3SS)))


class TokenMixer(nn.Module):
    """A cell and its neighbours in each channel, the cell alone in each, and the cell itself: as one convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, kernel=3, groups=channels)
        self.conv1 = ConvNorm(channels, channels, groups=channels)

    def forward(self, x_BCss: Tensor) -> Tensor:
        (weight, bias_C), (own, own_bias_C) = self.conv.folded(), self.conv1.folded()
        weight[:, :, 1, 1] += own[:, :, 0, 0] + 1
        dtype = self.conv.c.weight.dtype
        return F.conv2d(x_BCss, weight.to(dtype), (bias_C + own_bias_C).to(dtype), padding=1, groups=len(weight))


class SqueezeExcite(nn.Module):
    """Every channel weighted by what the map's mean tells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, (channels // SQUEEZED + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.fc2 = nn.Conv2d(squeezed, channels, kernel_size=1)

    def forward(self, x_BCss: Tensor) -> Tensor:
        mean_BC11 = x_BCss.mean(dim=(2, 3), keepdim=True)
        return x_BCss * self.fc2(F.relu(self.fc1(mean_BC11))).sigmoid()


class ChannelMixer(nn.Module):
    """Every position alone, with twice the channels between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, 2 * channels)
        self.conv2 = ConvNorm(2 * channels, channels)

    def forward(self, x_BCss: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(x_BCss)))


class Block(nn.Module):
    """Positions mixed, then channels."""

    def __init__(self, channels: int, *, squeezes: bool) -> None:
        super().__init__()
        self.token_mixer = TokenMixer(channels)
        self.se = SqueezeExcite(channels) if squeezes else nn.Identity()
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x_BCss: Tensor) -> Tensor:
        x_BCss = self.se(self.token_mixer(x_BCss))
        return x_BCss + self.channel_mixer(x_BCss)


class Downsample(nn.Module):
    """To the next stage's side and channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.pre_block = Block(channels, squeezes=False)
        self.spatial_downsample = ConvNorm(channels, channels, kernel=3, stride=2, groups=channels)
        self.channel_downsample = ConvNorm(channels, out)
        self.ffn = ChannelMixer(out)

    def forward(self, x_BCss: Tensor) -> Tensor:
        x_BCss = self.channel_downsample(self.spatial_downsample(self.pre_block(x_BCss)))
        return x_BCss + self.ffn(x_BCss)


class Stage(nn.Module):
    """Blocks, of which every other one squeezes, beginning with the first."""

    def __init__(self, channels: int, out: int, depth: int) -> None:
        super().__init__()
        self.downsample = nn.Identity() if channels == out else Downsample(channels, out)
        self.blocks = nn.Sequential(*(Block(out, squeezes=index % 2 == 0) for index in range(depth)))

    def forward(self, x_BCss: Tensor) -> Tensor:
        return self.blocks(self.downsample(x_BCss))


class Body(nn.Module):
    """Normalised images -> the map at the end of each stage."""

    def __init__(self, config: RepVitConfig) -> None:
        super().__init__()
        self.stem = Stem(config.dims[0])
        entered = (config.dims[0], *config.dims)
        self.stages_0, self.stages_1, self.stages_2, self.stages_3 = (
            Stage(channels, out, depth)
            for channels, out, depth in zip(entered, config.dims, config.depths, strict=False)
        )

    def forward(self, images_B3SS: Tensor) -> list[Tensor]:
        """(B, s, s, C) each."""
        x_BCss, maps = self.stem(images_B3SS), list[Tensor]()
        for stage in (self.stages_0, self.stages_1, self.stages_2, self.stages_3):
            x_BCss = stage(x_BCss)
            maps.append(x_BCss.permute(0, 2, 3, 1))
        return maps


class Trunk(nn.Module):
    """What the released code puts around it."""

    def __init__(self, config: RepVitConfig) -> None:
        super().__init__()
        self.body = Body(config)

    def forward(self, images_B3SS: Tensor) -> list[Tensor]:
        return self.body(images_B3SS)


class RepVit(nn.Module):
    """Normalised images of the input's side -> maps for the decoder."""

    def __init__(self, config: RepVitConfig) -> None:
        super().__init__()
        self.trunk = Trunk(config)
        self.neck = Neck(config.dims, config.decoder_dim)

    def forward(self, images_B3SS: Tensor) -> Maps:
        return self.neck(self.trunk(images_B3SS.contiguous(memory_format=torch.channels_last)))
