"""The decoder for tensor cores against the plain one, which is held to the published one by `tests/model`.

Its kernels are interpreted, with products as tensor cores compute them, and a CUDA graph is a list of kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.reference.random_sam_2 import random_sam_2
from model import point_decoder
from model.config import CONFIGS, MODELS, HieraConfig, ModelConfig, SamConfig
from model.decoder_tilings import TILINGS, Tiling, Tilings
from model.fused_decoder import FusedImage, fits
from model.mask_decoder import Embedded
from model.point_decoder import PointDecoder, Predictions
from model.sam import Sam
from model.shared_image import SharedImage
from tests.gpu.interpreted import interpreted_kernels
from tests.gpu.pretended import OnDevice, inner_of, moved, pretended_device
from tests.model.sam2 import SMALL as SMALL_2
from tests.model.test_equality import random_sam

SMALL = replace(CONFIGS["tiny"], input_side=80, window=0)
"""5 x 5 positions, which fill no tile."""
THREE_LAYERS = replace(SMALL, decoder_depth=3)
SHARED_OUT = replace(
    TILINGS,
    look=Tiling(positions=16, others=4, prompts=2, warps=4),
    last_look=Tiling(positions=16, others=8, prompts=2, warps=4),
    answer=Tiling(positions=16, others=4, prompts=2, warps=4, programs=2),
    measure=Tiling(positions=16, others=64, warps=4, programs=2),
)
"""Several prompts of a program, of which one may not be there, and programs that share the positions out."""
CASES: dict[str, tuple[ModelConfig, tuple[int, int], Tilings, int]] = {
    "bundled sizes, on some of the cells": (SMALL, (3, 4), TILINGS, 2),
    "one layer, two masks": (replace(SMALL, decoder_depth=1, multimask_outputs=2), (5, 5), TILINGS, 2),
    "three layers, other tilings": (THREE_LAYERS, (5, 5), SHARED_OUT, 3),
    "SAM 2": (replace(SMALL_2, input_side=128, decoder_dim=128), (4, 3), TILINGS, 2),
}
"""And the cells to form masks on, and how many points."""
SCORES_WITHIN = 2e-5
LOGITS_WITHIN = 1e-4
"""Of their standard deviation; the largest error."""


@pytest.fixture
def in_one_block(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Tensor]:
    """So many points in the unit square, which fill a block. One of a GPU's size would cost minutes here."""

    def drawn(points: int) -> Tensor:
        monkeypatch.setattr(point_decoder, "GPU_SMALL_BLOCK", points)
        return torch.rand(points, 2)

    return drawn


def some_sam(config: ModelConfig) -> tuple[Sam, Embedded]:
    """With random weights, and what a random image is to its decoder."""
    C, g, fine = config.decoder_dim, config.grid_side, None
    if isinstance(config, HieraConfig):
        sam = random_sam_2(config, seed=7)
        fine = torch.randn(1, C // 8, 4 * g, 4 * g), torch.randn(1, C // 4, 2 * g, 2 * g)
    else:
        assert isinstance(config, SamConfig)
        sam = random_sam(config)
    return sam, Embedded(torch.randn(1, C, g, g), fine)


def on_device(sam: Sam, seen: Embedded) -> tuple[PointDecoder, SharedImage]:
    """The decoder for tensor cores on the pretended device, and the crop as it takes it. Moves `sam` there."""
    moved(sam)
    decoder = PointDecoder(sam, "bf16x3")
    embedding_1Cgg: Tensor = OnDevice(seen.embedding_1Cgg)
    fine: tuple[Tensor, Tensor] | None = None
    if seen.fine is not None:
        fine = OnDevice(seen.fine[0]), OnDevice(seen.fine[1])
    return decoder, decoder.share(embedding_1Cgg, fine)


@pytest.mark.parametrize("name", CASES)
def test_the_fused_decoder_gives_the_plain_ones_scores_and_masks(
    in_one_block: Callable[[int], Tensor], name: str
) -> None:
    """Every layer's passes over positions, masks on a part of the cells, and the options of SAM 2."""
    config, cells_hw, tilings, points = CASES[name]
    sam, seen = some_sam(config)
    coords_P2 = in_one_block(points) * config.input_side
    with torch.no_grad():
        plain = PointDecoder(sam)
        exact = plain.decode(plain.share(*seen), coords_P2, pred_iou_thresh=-math.inf, cells_hw=cells_hw)
        with pretended_device(), interpreted_kernels():
            decoder, image = on_device(sam, seen)
            assert decoder.fused is not None
            decoder.fused.tilings = tilings
            decoder.spare_memory()  # a graph would compute everything three times
            ours = decoder.decode(image, OnDevice(coords_P2), pred_iou_thresh=-math.inf, cells_hw=cells_hw)
            found = Predictions(*(inner_of(each) for each in (ours.predicted_iou_PM, ours.live_PM, ours.logits_PMhw)))
    assert (found.predicted_iou_PM - exact.predicted_iou_PM).abs().max() < SCORES_WITHIN
    assert found.live_PM.all()
    error = (found.logits_PMhw - exact.logits_PMhw).abs().max() / exact.logits_PMhw.std()
    assert LOGITS_WITHIN / 1000 < error < LOGITS_WITHIN


def test_points_are_decoded_without_a_wait_and_masks_that_nobody_wants_are_not_formed(
    in_one_block: Callable[[int], Tensor],
) -> None:
    """By the graph of the block, in which the decoder's memory is garbage until it is replayed."""
    config = replace(SMALL, input_side=48, decoder_depth=1)
    sam, seen = some_sam(config)
    coords_P2 = in_one_block(2) * config.input_side
    cells_hw = config.grid_side, config.grid_side
    with torch.no_grad():
        plain = PointDecoder(sam)
        exact = plain.decode(plain.share(*seen), coords_P2, pred_iou_thresh=-math.inf, cells_hw=cells_hw)
        best_P = exact.predicted_iou_PM.amax(dim=1)
        thresh = float(best_P.mean())
        with pretended_device() as start, interpreted_kernels():
            decoder, image = on_device(sam, seen)
            there: Tensor = OnDevice(coords_P2)
            decoder._by_graph((image, there))
            log = start()
            ours = decoder.decode(image, there, pred_iou_thresh=thresh, cells_hw=cells_hw)
            assert log.waits.total() == 0, str(log)
            of_block = decoder._by_graph((image, there)).seen
            assert isinstance(of_block, FusedImage)
            logits_PMhw: Tensor = OnDevice(torch.full_like(exact.logits_PMhw, torch.nan))
            of_block.fill(logits_PMhw, logits_PMhw.new_ones(2, 3, 16), ours.live_PM, cells_hw)
    assert torch.equal(inner_of(ours.live_PM), exact.predicted_iou_PM > thresh)
    assert torch.equal(inner_of(logits_PMhw).isnan().flatten(1).all(dim=1), best_P <= thresh)
    live_PM = inner_of(ours.live_PM)
    error = (inner_of(ours.logits_PMhw) - exact.logits_PMhw)[live_PM].abs().max() / exact.logits_PMhw.std()
    assert error < LOGITS_WITHIN


def test_all_models_that_have_a_name_are_decoded_on_tensor_cores_in_the_precisions_for_them() -> None:
    """And nothing is fused on a CPU, in float32, or without Triton."""
    assert all(fits(config) for config in MODELS.values())
    assert not fits(replace(SMALL, decoder_heads=2))
    sam = random_sam(SMALL)
    assert PointDecoder(sam, "bf16x3").fused is None
    with torch.no_grad(), pretended_device(), pytest.MonkeyPatch.context() as patch:
        moved(sam)
        assert PointDecoder(sam, "bf16").fused is not None
        assert PointDecoder(sam, "fp32").fused is None
        patch.setitem(__import__("sys").modules, "triton", None)
        assert PointDecoder(sam, "bf16").fused is None
