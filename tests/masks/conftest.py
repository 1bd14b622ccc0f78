"""Images and weights on which the generator is compared with the released one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.reference.official import calibrated_official
from model.config import SamConfig

MINI = SamConfig(
    "mini",
    embed_dim=64,
    depth=2,
    heads=2,
    global_blocks=(1,),
    input_side=128,
    window=7,
    decoder_dim=64,
    decoder_heads=4,
    decoder_mlp=128,
    iou_head_dim=64,
)


def scene(height: int, width: int, *, seed: int) -> npt.NDArray[np.uint8]:
    """Overlapping ellipses of random colours."""
    rng = np.random.default_rng(seed)
    image_HW3 = np.full((height, width, 3), rng.integers(0, 256, 3), dtype=np.uint8)
    for _ in range(12):
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(2, max(3, width // 4))), int(rng.integers(2, max(3, height // 4)))
        cv2.ellipse(image_HW3, centre, axes, float(rng.integers(180)), 0, 360, colour, -1)
    return image_HW3


@pytest.fixture(scope="session")
def mini_sam() -> Any:
    """A small released `Sam` with calibrated random weights."""
    return calibrated_official(MINI, scene(240, 320, seed=0), seed=0)
