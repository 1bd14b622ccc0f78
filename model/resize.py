"""Antialiased bilinear resizing of 8-bit images, bit for bit as Pillow does it, in torch.

Segment Anything was trained and released with Pillow's resize; another rounding would change masks. Integer
arithmetic on either device, so the result does not depend on the machine.

Along a row first, then along a column, rounded to 8 bits in between: the order of every Pillow that the released
models were trained and used with. Pillow 13 swaps it for some tall images, which moves single grey levels there.

Source: Pillow's `Image.resize` and its resampling filters (triangle of 22-bit fixed-point weights).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from model.transfers import sent

FRACTION_BITS = 22


def resize_bilinear(image_HW3: Tensor, height: int, width: int) -> Tensor:
    """uint8 (H, W, 3) -> uint8 (height, width, 3). A side that keeps its length is left untouched."""
    if width != image_HW3.shape[1]:
        image_HW3 = _resample(image_HW3, dim=1, size=width)
    if height != image_HW3.shape[0]:
        image_HW3 = _resample(image_HW3, dim=0, size=height)
    return image_HW3


def _resample(image: Tensor, *, dim: int, size: int) -> Tensor:
    first, weights = triangle_weights(image.shape[dim], size, image.device)
    last = image.shape[dim] - 1
    shape = [1, 1, 1]
    shape[dim] = size
    total = torch.full((), 1 << (FRACTION_BITS - 1), dtype=torch.int32, device=image.device)
    for tap in range(weights.shape[1]):
        pixels = image.index_select(dim, (first + tap).clamp_(max=last))  # beyond the end the weight is zero
        total = total + pixels.int() * weights[:, tap].reshape(shape)
    return (total >> FRACTION_BITS).clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def triangle_weights(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each of `size` outputs: its first input and the fixed-point weights of it and its successors."""
    scale = length / size
    support = max(scale, 1.0)
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first = (centre - support + 0.5).clamp(min=0).floor()
    end = (centre + support + 0.5).clamp(max=length).floor()
    taps = torch.arange(int((end - first).max()), dtype=torch.float64)
    position = first[:, None] + taps + 0.5 - centre[:, None]
    weights = (1 - (position / support).abs()).clamp(min=0) * (taps < (end - first)[:, None])
    weights = weights / weights.sum(1, keepdim=True)
    fixed = (weights * (1 << FRACTION_BITS) + 0.5).floor().int()
    return sent(first.long(), device), sent(fixed, device)
