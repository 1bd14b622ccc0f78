"""The bundled model on a pretended device, and images that cost it little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest

from model.load import load_segmenter
from model.segmenter import TorchSegmenter
from pipeline.records import ImageMasks
from pipeline.settings import Recipe
from pipeline.work.device import Device
from pipeline.work.stopwatch import Stopwatch
from tests.gpu.interpreted import interpreted_kernels
from tests.gpu.pretended import moved, pretended_device
from tests.gpu.waits import Log
from tests.masks.conftest import scene

IMAGE = scene(32, 48, seed=5)
SAM = Recipe(points_per_side=2, pred_iou_thresh=0.42, stability_score_thresh=0.8)
"""One crop of 4 points."""
CROPS = replace(SAM, crop_n_layers=1, crop_n_points_downscale_factor=2, min_mask_region_area=20)
"""Five crops, four of them with one point."""


@dataclass(frozen=True)
class Both:
    """One image done on the CPU and on the pretended device, and what that was asked for it."""

    on_cpu: ImageMasks
    on_device: ImageMasks
    log: Log


@pytest.fixture(scope="session")
def both() -> Callable[[Recipe], Both]:
    """The image with a recipe, once in a session."""

    @cache
    def done(recipe: Recipe) -> Both:
        segmenter = load_segmenter(name="tiny", checkpoint=None, device="cpu")
        on_cpu = Device(segmenter, recipe).generate(IMAGE, Stopwatch())
        with pretended_device() as start, interpreted_kernels():
            moved(segmenter.sam)
            device = Device(TorchSegmenter(segmenter.sam, weights_sha256=""), recipe)
            log = start()
            return Both(on_cpu, device.generate(IMAGE, Stopwatch()), log)

    return done
