"""What needs every pixel of a candidate: the upscaled logits, how many to hold at once, the box of a mask.

Legend: N candidates, h w low-resolution cells, H W pixels of a crop, S the model's square input side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

STEP_PIXELS = 2**24
"""Pixels of full-size logits that one step should hold (64 MiB of float32)."""
MOST_STEP_PIXELS = 2**27
"""Pixels above which three masks at once are too many (512 MiB of float32, images of 44 megapixels)."""


def masks_per_step(crop_hw: tuple[int, int], input_side: int) -> int:
    """How many masks to hold at full size at once: whole triples (see `upscale_logits`), for huge crops a single one.

    Depends on sizes alone, so that a mask's pixels never depend on how many others there are.
    """
    pixels = max(crop_hw[0] * crop_hw[1], input_side**2)
    if 3 * pixels > MOST_STEP_PIXELS:
        return 1
    return 3 * max(1, STEP_PIXELS // (3 * pixels))


def upscale_logits(
    logits_Nhw: torch.Tensor, *, input_side: int, resized_hw: tuple[int, int], crop_hw: tuple[int, int]
) -> torch.Tensor:
    """(N, H, W) float32 logits on the crop's pixels: up to the input square, padding cut off, then to the crop.

    Both steps are bilinear with pixel centres as in the released code, whose three channels are kept: with one thread
    torch's CPU kernel for three channels rounds differently (5e-7) than the one for any other number, and a mask must
    not depend on its neighbours. On huge crops masks go one by one, for the memory.
    """
    count = len(logits_Nhw)
    channels = 1 if masks_per_step(crop_hw, input_side) == 1 else 3
    padded_Mhw = F.pad(logits_Nhw, (0, 0, 0, 0, 0, -count % channels))
    planes = padded_Mhw.reshape(-1, channels, *logits_Nhw.shape[-2:])
    square = F.interpolate(planes, (input_side, input_side), mode="bilinear", align_corners=False)
    inside = square[..., : resized_hw[0], : resized_hw[1]]
    return F.interpolate(inside, crop_hw, mode="bilinear", align_corners=False).flatten(0, 1)[:count]


def mask_boxes(masks_NHW: torch.Tensor) -> torch.Tensor:
    """(N, 4) int64 XYXY of the first and last row and column inside each bool mask; zeros for an empty mask."""
    x0, x1 = _first_and_last(masks_NHW.any(dim=1))
    y0, y1 = _first_and_last(masks_NHW.any(dim=2))
    return torch.stack([x0, y0, x1, y1], dim=1)


def _first_and_last(hit_NL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the first and last True of each row; 0 and 0 where there is none."""
    position_L = torch.arange(hit_NL.shape[1], device=hit_NL.device)
    last_N = torch.where(hit_NL, position_L, 0).amax(dim=1)
    first_N = torch.where(hit_NL, position_L, last_N[:, None]).amin(dim=1)
    return first_N, last_N
