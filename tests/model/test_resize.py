"""The resize in front of the encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from model.resize import resize_bilinear


@pytest.mark.parametrize(
    "source_hw", [(1500, 2250), (683, 1024), (1, 1), (31, 977), (567, 692), (2, 4000), (255, 257), (100, 3)]
)
@pytest.mark.parametrize("target_hw", [(171, 256), (1024, 1024), (683, 1024), (1, 64)])
def test_resize_equals_pillow_bit_for_bit(source_hw: tuple[int, int], target_hw: tuple[int, int]) -> None:
    """Segment Anything was trained behind Pillow's antialiased resize; one grey level of difference moves masks.

    Pillow 13 chooses the order of its two passes by size; asking for one pass at a time keeps the order it had before.
    """
    image_HW3 = np.random.default_rng(7).integers(0, 256, (*source_hw, 3), dtype=np.uint8)
    height, width = target_hw
    wide = Image.fromarray(image_HW3).resize((width, source_hw[0]), Image.Resampling.BILINEAR)
    expected = np.asarray(wide.resize((width, height), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_bilinear(torch.from_numpy(image_HW3), height, width).numpy(), expected)
