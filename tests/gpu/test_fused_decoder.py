"""The decoder for tensor cores against the plain one, which is held to the published one by `tests/model`.

Its kernels are interpreted, with products as tensor cores compute them, and a CUDA graph is a list of kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.reference.random_sam_2 import random_sam_2
from model import point_decoder
from model.config import CONFIGS, ModelConfig
from model.mask_decoder import Embedded
from model.point_decoder import PointDecoder, Predictions
from model.sam import Sam
from tests.gpu.interpreted import interpreted_kernels
from tests.gpu.pretended import OnDevice, inner_of, moved, pretended_device
from tests.model.sam2 import SMALL as SMALL_2
from tests.model.test_equality import random_sam

SMALL = replace(CONFIGS["tiny"], input_side=80, window=0)
"""5 x 5 positions, which fill no tile."""
CASES: dict[str, tuple[ModelConfig, tuple[int, int]]] = {
    "sizes of the bundled model": (SMALL, (5, 5)),
    "on some of the cells": (SMALL, (3, 4)),
    "one layer, two masks": (replace(SMALL, decoder_depth=1, multimask_outputs=2), (5, 5)),
    "three layers": (replace(SMALL, decoder_depth=3), (5, 5)),
    "SAM 2": (replace(SMALL_2, input_side=128, decoder_dim=128), (4, 3)),
}
"""And the cells to form masks on."""
POINTS, BLOCK = 3, 2
"""Two blocks, the last one filled up."""
SCORES_WITHIN = 2e-5
LOGITS_WITHIN = 1e-4
"""Of their standard deviation."""


@pytest.fixture
def interpreted() -> Iterator[None]:
    with pretended_device(), interpreted_kernels():
        yield


def some_sam(config: ModelConfig) -> tuple[Sam, Embedded]:
    """With random weights, and what a random image is to its decoder."""
    sam = random_sam_2(config, seed=7) if config.fine_features else random_sam(config)
    C, g, fine = config.decoder_dim, config.grid_side, None
    if config.fine_features:
        fine = torch.randn(1, C // 8, 4 * g, 4 * g), torch.randn(1, C // 4, 2 * g, 2 * g)
    return sam, Embedded(torch.randn(1, C, g, g), fine)


def on_device(value: Tensor) -> Tensor:
    return OnDevice(value)


def fused(sam: Sam, seen: Embedded, coords_P2: Tensor, thresh: float, cells_hw: tuple[int, int]) -> Predictions:
    """By the decoder for tensor cores on the pretended device, where `sam` and `seen` are not yet."""
    moved(sam)
    decoder = PointDecoder(sam, "bf16x3")
    assert decoder.fused is not None
    decoder.spare_memory()  # a graph would compute everything three times
    fine = None if seen.fine is None else (on_device(seen.fine[0]), on_device(seen.fine[1]))
    shared = decoder.share(on_device(seen.embedding_1Cgg), fine)
    found = decoder.decode(shared, on_device(coords_P2), pred_iou_thresh=thresh, cells_hw=cells_hw)
    return Predictions(inner_of(found.predicted_iou_PM), inner_of(found.live_PM), inner_of(found.logits_PMhw))


@pytest.mark.parametrize("name", CASES)
def test_the_fused_decoder_gives_the_plain_ones_scores_and_masks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer's passes over positions, masks on a part of the cells, and the options of SAM 2."""
    config, cells_hw = CASES[name]
    sam, seen = some_sam(config)
    coords_P2 = torch.rand(POINTS, 2) * config.input_side
    monkeypatch.setattr(point_decoder, "GPU_SMALL_BLOCK", BLOCK)
    with torch.no_grad():
        plain = PointDecoder(sam)
        exact = plain.decode(plain.share(*seen), coords_P2, pred_iou_thresh=-math.inf, cells_hw=cells_hw)
        with pretended_device(), interpreted_kernels():
            found = fused(sam, seen, coords_P2, -math.inf, cells_hw)
    assert (found.predicted_iou_PM - exact.predicted_iou_PM).abs().max() < SCORES_WITHIN
    assert found.live_PM.all()
    error = (found.logits_PMhw - exact.logits_PMhw).abs().max() / exact.logits_PMhw.std()
    assert LOGITS_WITHIN / 1000 < error < LOGITS_WITHIN
