"""Counts, boxes and runs by each of those who can answer for them, against full-size arrays: compiled code, and Triton.

Triton's kernels are interpreted here, and compiled for an H100 to see what they need; on a GPU nothing of this ran yet.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.point_decoder import Predictions
from pipeline.masks import gpu_kernels, tiles
from pipeline.masks.measure import Live
from pipeline.masks.on_cpu import OnCpu
from pipeline.masks.on_gpu import OnGpu
from pipeline.masks.rle import Rle
from pipeline.masks.upscaling import Upscaling
from pipeline.masks.work import MaskWork, work_for
from tests.gpu.interpreted import fused, interpreted_kernels
from tests.gpu.pretended import CUDA, pretended_device
from tests.masks.oracle import count_above, encode_mask, mask_boxes, upscale_logits
from tests.masks.test_tiles import resized, smooth

ROOT = Path(__file__).parent.parent.parent
SIZES: list[tuple[int, int, tuple[int, int]]] = [
    (16, 64, (36, 50)),
    (64, 256, (40, 30)),
    (16, 64, (1, 1)),
    (16, 64, (1, 40)),
]
"""Low-resolution cells along a side, input side, crop: growing, shrinking, one pixel, one row."""
WORKS = {"compiled": OnCpu, "triton": OnGpu}


@pytest.fixture(params=WORKS)
def asked(request: pytest.FixtureRequest) -> Iterator[tuple[MaskWork, torch.device]]:
    """Who is asked, and where logits have to be for that."""
    with ExitStack() as stack:
        if request.param != "compiled":
            stack.enter_context(pretended_device())
            stack.enter_context(interpreted_kernels())
        yield WORKS[request.param](), torch.device("cpu") if request.param == "compiled" else CUDA


def upscaling_to(crop_hw: tuple[int, int], *, cells: int, side: int) -> Upscaling:
    return Upscaling.between((cells, cells), input_side=side, resized_hw=resized(crop_hw, side), crop_hw=crop_hw)


def predictions(logits_Shw: Tensor, live_S: Tensor, device: torch.device) -> Predictions:
    """One output a point; the predicted IoU of slot s is s / 8."""
    predicted_iou_S1 = torch.arange(len(live_S))[:, None] / 8
    return Predictions(*(each.to(device) for each in (predicted_iou_S1, live_S[:, None], logits_Shw[:, None])))


def assert_full_size(live: Live, runs: tuple[Rle, ...], full_NHW: Tensor, *, offset: float) -> None:
    assert live.measures.tight_N.tolist() == count_above(full_NHW, offset).tolist()
    assert live.measures.loose_N.tolist() == count_above(full_NHW, -offset).tolist()
    assert live.measures.box_xyxy_N4.tolist() == mask_boxes(full_NHW > 0).tolist()
    for rle, full_HW in zip(runs, full_NHW, strict=True):
        assert rle.hw == tuple(full_HW.shape)
        assert np.array_equal(rle.run_M, encode_mask((full_HW > 0).numpy()).run_M)


@pytest.mark.parametrize(("cells", "side", "crop_hw"), SIZES)
def test_counts_boxes_and_runs_are_those_of_full_size_logits(
    asked: tuple[MaskWork, torch.device], cells: int, side: int, crop_hw: tuple[int, int]
) -> None:
    """A steep blob, whole numbers on the cuts, everything and nothing; and slots that are not live."""
    (work, device), offset = asked, 1.0
    logits_Shw = torch.cat(
        [
            smooth(1, cells, seed=1, detail=4, gain=40),
            torch.full((1, cells, cells), torch.nan),
            smooth(1, cells, seed=2, detail=9, gain=3),
            torch.full((1, cells, cells), 0.3),
            torch.full((1, cells, cells), -50.0),
            torch.full((1, cells, cells), torch.nan),
        ]
    )
    logits_Shw[2] = logits_Shw[2].round()
    live_S = ~logits_Shw[:, 0, 0].isnan()
    full_NHW = upscale_logits(
        logits_Shw[[0, 2, 3, 4]], input_side=side, resized_hw=resized(crop_hw, side), crop_hw=crop_hw
    )
    upscaling = upscaling_to(crop_hw, cells=cells, side=side)
    measured = work.measure(predictions(logits_Shw, live_S, device), upscaling, offset=offset, least_score=-1)
    live = measured.arrived()
    assert live.slot_N.tolist() == [0, 2, 3, 4]
    assert live.predicted_iou_N.tolist() == [0, 2 / 8, 3 / 8, 4 / 8]
    runs = work.trace(measured.untraced(np.arange(4))).arrived()
    assert_full_size(live, runs, full_NHW, offset=offset)


def test_smaller_tiles_find_the_same() -> None:
    """A GPU may turn out to be faster with them (docs/gpu.md)."""
    upscaling, logits_1hw = upscaling_to((21, 30), cells=16, side=64), smooth(1, 16, seed=7, detail=6, gain=9)
    full_1HW = upscale_logits(logits_1hw, input_side=64, resized_hw=resized((21, 30), 64), crop_hw=(21, 30))
    with pretended_device(), interpreted_kernels():
        work, asked = OnGpu(side=16), predictions(logits_1hw, torch.ones(1, dtype=torch.bool), CUDA)
        measured = work.measure(asked, upscaling, offset=1.0, least_score=-1)
        live, runs = measured.arrived(), work.trace(measured.untraced(np.arange(1))).arrived()
    assert_full_size(live, runs, full_1HW, offset=1.0)


def test_masks_of_several_batches_are_traced_in_the_order_they_are_given(
    asked: tuple[MaskWork, torch.device],
) -> None:
    """Duplicates are known once all batches of a crop are, and the survivors are in order of their scores."""
    work, device = asked
    upscaling = upscaling_to((20, 30), cells=16, side=64)
    logits_Shw = smooth(6, 16, seed=5, detail=4, gain=20)
    full_NHW = upscale_logits(logits_Shw, input_side=64, resized_hw=resized((20, 30), 64), crop_hw=(20, 30))
    masks: list[Any] = []
    for batch in (slice(0, 3), slice(3, 6)):
        batch_Shw = logits_Shw[batch]
        measured = work.measure(
            predictions(batch_Shw, torch.ones(3, dtype=torch.bool), device), upscaling, offset=1, least_score=-1
        )
        masks += measured.untraced(np.array([2, 0]))
    runs = work.trace([masks[3], masks[0], masks[2]]).arrived()
    for rle, number in zip(runs, (3, 2, 5), strict=True):
        assert np.array_equal(rle.run_M, encode_mask((full_NHW[number] > 0).numpy()).run_M)


def test_a_batch_without_live_masks_and_a_crop_without_survivors_are_answered_too(
    asked: tuple[MaskWork, torch.device],
) -> None:
    """Empty skies happen in every run."""
    work, device = asked
    none_S, upscaling = torch.zeros(2, dtype=torch.bool), upscaling_to((9, 8), cells=16, side=64)
    measured = work.measure(
        predictions(torch.full((2, 16, 16), torch.nan), none_S, device), upscaling, offset=1, least_score=-1
    )
    live = measured.arrived()
    assert (len(live.slot_N), live.measures.box_xyxy_N4.shape) == (0, (0, 4))
    assert measured.untraced(np.arange(0)) == ()
    assert work.trace(()).arrived() == ()


def test_a_mask_with_more_runs_than_there_is_room_for_is_traced_again(asked: tuple[MaskWork, torch.device]) -> None:
    """Every other row inside: as many runs as pixels, which no real mask has."""
    work, device = asked
    side = 90
    logits_2hw = torch.where(torch.arange(side) % 2 == 0, 5.0, -5.0)[None, :, None].repeat(2, 1, side)
    logits_2hw[1] = -5
    upscaling = Upscaling.between((side, side), input_side=side, resized_hw=(side, 1), crop_hw=(side, 1))
    measured = work.measure(
        predictions(logits_2hw, torch.ones(2, dtype=torch.bool), device), upscaling, offset=1, least_score=-1
    )
    striped, empty = work.trace(measured.untraced(np.arange(2))).arrived()
    assert striped.run_M.tolist() == [0] + [1] * side
    assert empty.run_M.tolist() == [side]


def test_what_rounds_in_tiles_rounds_in_the_kernels() -> None:
    """The margin around a tile's cells is stated twice, since a kernel takes no number from elsewhere."""
    assert gpu_kernels.ROUNDING.value == tiles.ROUNDING


def test_the_interpreter_rounds_a_product_and_sum_once() -> None:
    """Its own way rounds the product too; then the interpreted kernels would be other kernels."""
    x, z = np.float32(1 + 2**-12), np.float32(-(1 + 2**-11))
    assert x * x + z == 0
    assert fused(*(np.array([value], np.float32) for value in (x, x, z)))[0] == 2**-24


ON_A_CPU = """
import sys
sys.modules["triton"] = None
import torch
from model.point_decoder import Predictions
from pipeline.masks.generator import generate_masks
from pipeline.masks.on_cpu import OnCpu
from pipeline.masks.work import work_for
flags, logits = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, 4, 4)
assert isinstance(work_for(Predictions(flags.float(), flags, logits)), OnCpu)
assert not {"pipeline.masks.on_gpu", "pipeline.masks.gpu_kernels"} & set(sys.modules)
"""


def test_who_has_no_gpu_never_imports_triton() -> None:
    """It is not on every machine. Where it is, torch itself imports it now and then; here nobody can."""
    done = subprocess.run([sys.executable, "-c", ON_A_CPU], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_who_answers_follows_from_where_the_logits_are() -> None:
    """And a GPU without Triton has its logits copied, as it always had."""
    logits_Shw, live_S = torch.zeros(1, 4, 4), torch.ones(1, dtype=torch.bool)
    assert isinstance(work_for(predictions(logits_Shw, live_S, torch.device("cpu"))), OnCpu)
    with pretended_device():
        there = predictions(logits_Shw, live_S, CUDA)
        assert isinstance(work_for(there), OnGpu)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "triton", None)
            assert isinstance(work_for(there), OnCpu)
