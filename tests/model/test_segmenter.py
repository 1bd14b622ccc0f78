"""How a crop is fitted into the model's square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from model.preprocess import StretchResize, fit_into_square
from model.sam import Sam
from tests.model.sam2 import SMALL


@pytest.mark.parametrize(
    ("hw", "side", "fitted"),
    [
        ((1025, 2048), 1024, (513, 1024)),
        ((2048, 1027), 1024, (1024, 514)),
        ((1024, 1024), 1024, (1024, 1024)),
        ((3, 7), 1024, (439, 1024)),
        ((1, 5000), 1024, (1, 1024)),
    ],
)
def test_the_longer_side_fills_the_square_and_halves_are_rounded_up(
    hw: tuple[int, int], side: int, fitted: tuple[int, int]
) -> None:
    """As the released code does; Python's own round() would take 512.5 to 512, and every mask would move."""
    assert fit_into_square(hw, side) == fitted


@pytest.mark.parametrize("hw", [(1, 5000), (5000, 1), (300, 451), (64, 64), (33, 2000)])
def test_a_stretched_crop_is_resized_as_torch_does_all_its_channels_and_nearly_as_pillow_does(
    hw: tuple[int, int],
) -> None:
    """SAM 2 was released with this resize, in float32; another rounding would change masks."""
    sam = Sam(SMALL)
    crop_HW3 = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    square_13SS = StretchResize(sam).square(crop_HW3)
    side = (SMALL.input_side, SMALL.input_side)
    unit_13HW = torch.from_numpy(crop_HW3).permute(2, 0, 1)[None].contiguous().float() / 255
    whole_13SS = F.interpolate(unit_13HW, side, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (SMALL.unit_mean, SMALL.unit_std))
    assert torch.equal(square_13SS, (whole_13SS - mean) / std)
    pillow_SS3 = np.asarray(Image.fromarray(crop_HW3).resize(side, Image.Resampling.BILINEAR), np.float32)
    grey_SS3 = (square_13SS * std + mean)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(grey_SS3 - pillow_SS3).max() <= 1.1
