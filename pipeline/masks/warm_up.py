"""Compile what the first mask would compile, before anybody waits for an image.

Owns one square with a hole, on which every compiled function is called with the types that it will see; a test holds
that none is forgotten. Takes about ten seconds of a core where nothing is cached, a fraction of one elsewhere.
"""

from __future__ import annotations

import numpy as np

from pipeline.masks.clean import clean_mask
from pipeline.masks.measure import measure_masks
from pipeline.masks.trace import UntracedMask
from pipeline.masks.upscaling import Upscaling

SIDE = 16
"""Cells of the logits, pixels of the input square and of the crop."""


def warm_up() -> None:
    """Measure, trace, move, clean and pack the square."""
    upscaling = Upscaling.between((SIDE, SIDE), input_side=SIDE, resized_hw=(SIDE, SIDE), crop_hw=(SIDE, SIDE))
    logits_1wh = np.full((1, SIDE, SIDE), -20, np.float32)
    logits_1wh[:, 4:12, 4:12] = 20
    logits_1wh[:, 7, 7] = -20
    measure_masks(logits_1wh, upscaling, offset=1, least_score=0)
    traced = UntracedMask(logits_1wh[0], upscaling).traced()
    cleaned = clean_mask(traced.pasted(at_xy=(0, 0), frame_hw=(2 * SIDE, 2 * SIDE)), below_area=9).rle
    _ = cleaned.packed(), cleaned.box_xyxy
