"""A small picture and the bundled weights of `tiny` in the released network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.reference.official import build_official
from model.config import CONFIGS
from model.load import BUNDLED, load_sam
from model.training.scenes import HELD_OUT_FROM, draw_scene
from pipeline import MaskGenerator
from tests.masks.remembering import asked_once

FEW: dict[str, Any] = {
    "points_per_side": 6,
    "pred_iou_thresh": 0.5,
    "stability_score_thresh": 0.6,
    "box_nms_thresh": 0.7,
    "crop_nms_thresh": 0.7,
}
"""Points and thresholds with which the picture has some masks, in little time. All that `tiny` would bring
is here, so that the released generator can be asked for the same."""


@pytest.fixture(scope="session")
def picture() -> npt.NDArray[np.uint8]:
    return draw_scene(0, HELD_OUT_FROM + 77, size_hw=(180, 240)).rgb_HW3


@pytest.fixture(scope="session")
def official() -> Iterator[Any]:
    """Asked each thing once: most tests ask it about the same crops of the picture."""
    sam = build_official(CONFIGS["tiny"])
    sam.load_state_dict(load_sam(BUNDLED["tiny"].read_bytes()).state_dict())
    with asked_once(sam):
        yield sam


@pytest.fixture(scope="session")
def generator() -> MaskGenerator:
    return MaskGenerator(model="tiny", **FEW)
