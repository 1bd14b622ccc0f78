"""The benchmark on another device or of another size: floors, defaults, parity, the weights that stand in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.bounds import Floor, floors, seen_shares
from benchmarks.cases import Options, drawn_image
from benchmarks.ceilings import Ceilings
from benchmarks.command_line import parse
from benchmarks.compare import main as bench_main
from benchmarks.cost import Work
from benchmarks.image_cost import ImageWork, Shares
from benchmarks.parity import compare, markdown, must_agree
from benchmarks.parity import main as parity_main
from benchmarks.parity import parse as parse_parity
from benchmarks.peers import PEERS, Setup
from benchmarks.weights import find_weights
from benchmarks.widen import repeated_blocks, widened
from model.config import CONFIGS, SamConfig
from model.load import BUNDLED, load_sam
from model.point_decoder import Predictions
from model.segmenter import TorchSegmenter
from pipeline.masks.agreement import agreement
from pipeline.settings import Recipe


def test_floors_are_products_over_the_ceiling_of_their_precision() -> None:
    """A share of a wrong bound sends the next optimiser to the wrong stage."""
    unit = ImageWork(Work(600.0, 80.0), Work(20.0, 4.0), Work(), Work(50.0, 40.0), 0.0, 30.0)
    found = floors(unit, Ceilings({"fp32": 10.0, "bf16": 100.0}, 2.0), encoder="bf16")
    assert found["encode"] == Floor(620.0, 6.0 + 2.0, (40.0 + 4.0) / 2.0)
    assert found["prompts"] == Floor(50.0, 5.0, 20.0)
    assert found["post-processing"] == Floor(0.0, 15.0, 15.0)
    assert seen_shares({"candidates": 10, "low_predicted_iou": 6, "low_stability": 3}) == Shares(0.4, 0.4, 0.1)


def test_what_a_gpu_run_measures_by_default_is_what_a_gpu_is_for() -> None:
    """One command must give the whole table on a machine that is lent for minutes."""
    options, _ = parse(["--device", "cuda", "--recipes", "sam"])
    assert (options.models, options.recipes) == (("vit_b", "vit_h"), ("sam",))
    assert options.peers == ("released", "released_bf16", "transformers", "fast", "ours", "ours_bf16")
    assert parse([])[0] == Options()
    with pytest.raises(ImportError, match="--fast-checkout"):
        PEERS["fast"].build(Setup("tiny", "unread"))


@pytest.mark.parametrize("command", [bench_main, parity_main])
def test_cuda_without_a_gpu_ends_at_once_and_says_what_to_do(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Falling back to the CPU would put its numbers under a GPU's heading."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert command(["--device", "cuda"]) == 2
    assert "leave --device out, which measures on the CPU" in capsys.readouterr().err


def test_parity_counts_pairs_over_all_images_and_only_float32_must_agree(tmp_path: Path) -> None:
    """The first thing to run on a new device; bf16 on the CPU shows that it sees differences."""
    line = "--recipe fast --images 2 --width 160 --height 120 --pred-iou-thresh 0.5 --stability-score-thresh 0.5"
    options = parse_parity(line.split(" "))
    assert options.device == "cpu"
    found = compare(replace(options, folder=tmp_path))
    [(name, [one, two])] = found.items()
    assert name == "cpu, bf16"
    assert 0 < one.matched + two.matched < one.similar + two.similar <= one.reference + two.reference
    assert not must_agree(found)
    assert must_agree({"cuda, fp32": [one]}) == ["cuda, fp32"]
    [row] = markdown(found).splitlines()[2:]
    assert row.startswith(f"| cpu, bf16 | 2 | {one.count + two.count} | {one.reference + two.reference} |")


def test_a_released_encoder_under_bf16_finds_nearly_the_same_masks(tmp_path: Path) -> None:
    """It is what many users of the released code run on a GPU, so it must be a fair peer and not a broken one."""
    weights = str(find_weights("tiny", given=None, folder=tmp_path).path)
    image_HW3, recipe = (
        drawn_image("tiny", 77, (120, 160)),
        Recipe(points_per_side=4, pred_iou_thresh=0.5, stability_score_thresh=0.3),
    )
    exact, lower = (PEERS[name].build(Setup("tiny", weights)) for name in ("released", "released_bf16"))
    one, other = (peer.masks(peer.generate(image_HW3, recipe)) for peer in (exact, lower))
    found = agreement(one, other, image_hw=(120, 160))
    assert found.similar >= 0.8 * found.reference > 3
    assert found.identical < found.reference
    assert [stage for _, _, stage in lower.seams()] == [stage for _, _, stage in exact.seams()]


def _widened_answers(**sizes: Any) -> tuple[Predictions, Predictions]:
    """The bundled model's candidates for a few points, and those of the same model widened; same grid and windows."""
    small = load_sam(BUNDLED["tiny"].read_bytes())
    assert isinstance(small.config, SamConfig)
    wide = replace(small.config, name="wide", decoder_dim=256, **sizes)
    image_HW3 = drawn_image("tiny", 77, (96, 128))
    points_xy_P2 = np.array([[20.0, 30.0], [64.0, 48.0], [100.0, 80.0]])
    one, other = (
        segmenter.decode(segmenter.encode([image_HW3])[0], points_xy_P2, pred_iou_thresh=-math.inf)
        for segmenter in (TorchSegmenter(sam, weights_sha256="") for sam in (small, widened(small, wide)))
    )
    assert one.logits_PMhw.abs().max() > 5
    return one, other


def test_widened_weights_compute_what_the_small_model_does() -> None:
    """Figures of larger sizes would mean little with weights whose masks are noise."""
    one, other = _widened_answers(embed_dim=384, heads=6, depth=8, global_blocks=(2, 5, 7))
    torch.testing.assert_close(other.logits_PMhw, one.logits_PMhw, atol=2e-3, rtol=0)
    torch.testing.assert_close(other.predicted_iou_PM, one.predicted_iou_PM, atol=1e-5, rtol=0)
    small = CONFIGS["tiny"]
    with pytest.raises(ValueError, match="vit_b is no wider"):
        widened(load_sam(BUNDLED["tiny"].read_bytes()), replace(CONFIGS["vit_b"], embed_dim=96))
    with pytest.raises(ValueError, match="global blocks come in another order"):
        repeated_blocks(small, replace(CONFIGS["vit_b"], global_blocks=(11,)))


def test_weights_widened_by_no_whole_number_find_the_same_masks_but_for_their_rims() -> None:
    """ViT-H has 80 channels a head and 16 heads, and its first global block is the eighth."""
    one, other = _widened_answers(embed_dim=320, heads=4, depth=12, global_blocks=(3, 7, 11))
    inside, beside = one.logits_PMhw > 0, other.logits_PMhw > 0
    iou_PM = (inside & beside).sum((2, 3)) / (inside | beside).sum((2, 3)).clamp(min=1)
    assert iou_PM.min() > 0.9
    torch.testing.assert_close(other.predicted_iou_PM, one.predicted_iou_PM, atol=0.02, rtol=0)
    for name in ("vit_b", "vit_l", "vit_h"):
        at_work = [index for index, at_work in repeated_blocks(CONFIGS["tiny"], CONFIGS[name]) if at_work]
        assert at_work == list(range(CONFIGS["tiny"].depth))
