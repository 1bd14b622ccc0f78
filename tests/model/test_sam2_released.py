"""Our SAM 2 and our generator against the released ones, which a process of its own runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks.reference.random_sam_2 import calibrated_sam_2
from model import sam2_layouts
from model.config import MODELS
from model.first_values import without_first_values
from model.hiera import Block, Trunk
from model.predictor import EmbeddedImage
from model.sam import Sam
from model.segmenter import TorchSegmenter
from pipeline.api.prompts import prompt_of
from pipeline.masks.generator import generate_masks
from pipeline.settings import Recipe
from tests.masks.test_equality import assert_equal
from tests.model.sam2_oracle import (
    BLOB_OPTIONS,
    CONFIG,
    IMAGE,
    NETWORK_OPTIONS,
    PROMPTS,
    REFINED_OPTIONS,
    SIZES,
    BlobSegmenter,
    answer_of,
)

pytestmark = pytest.mark.skipif(find_spec("sam2") is None, reason="sam2 is not installed: make setup does it")

THRESHOLD = {"pred_iou_thresh": 0.8}
"""The default of the released generator, which conf/model brings with each SAM 2."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Importing sam2 takes Hydra for itself, which the other tests of this process need."""
    folder = tmp_path_factory.mktemp("sam2")
    command = [sys.executable, "-m", "tests.model.sam2_oracle", str(folder)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=240)
    return folder


@pytest.fixture(scope="module")
def released(answers: Path) -> dict[str, Any]:
    return json.loads((answers / "answers.json").read_text())


@pytest.fixture(scope="module")
def segmenter() -> TorchSegmenter:
    return TorchSegmenter(calibrated_sam_2(CONFIG, IMAGE, seed=0), weights_sha256="")


@pytest.mark.parametrize("index", range(len(SIZES)), ids=SIZES)
def test_each_size_has_the_released_tensors_windows_and_heads(released: dict[str, Any], index: int) -> None:
    """Windows, heads and global blocks do not show in a file, so that nothing else would find a wrong one."""
    told, name = released["sizes"][index], SIZES[index]
    with torch.device("meta"), without_first_values():
        sam = Sam(MODELS[name])
    found, _ = sam2_layouts.ours({key: torch.empty(shape, device="meta") for key, shape in told["shapes"].items()})
    shapes = {key: tensor.shape for key, tensor in sam.state_dict().items()}
    assert {key: tensor.shape for key, tensor in found.items()} == shapes
    assert sam2_layouts.release_of(told["shapes"]) == name[3:].partition("_")[0]
    blocks = [cast(Block, block) for block in cast(Trunk, sam.image_encoder.trunk).blocks]
    assert [[block.window, block.attn.heads, block.halves] for block in blocks] == told["blocks"]
    assert sam.config.input_side == told["side"]


def test_the_whole_generator_gives_the_released_ones_masks(released: dict[str, Any], segmenter: TorchSegmenter) -> None:
    """Resize, encoder, decoder, points, crops and filters together, as a user runs them."""
    [result] = generate_masks([IMAGE], segmenter, Recipe(**THRESHOLD, **NETWORK_OPTIONS))
    assert len(result.masks) > 10
    assert_equal(result.masks, released["network"], IMAGE.shape[:2])


def test_refined_masks_are_the_released_ones(released: dict[str, Any], segmenter: TorchSegmenter) -> None:
    """`use_m2m`: each mask goes back with its point, and one answer, which may not waver, takes its place."""
    [plain] = generate_masks([IMAGE], segmenter, replace(Recipe(**REFINED_OPTIONS), use_m2m=False))
    for at_once in (64, 7):
        [result] = generate_masks([IMAGE], segmenter, Recipe(**REFINED_OPTIONS, points_per_batch=at_once))
        assert len(result.masks) > 5
        assert {mask.counts for mask in result.masks}.isdisjoint(mask.counts for mask in plain.masks)
        # Of 48 masks of a model that was never trained, two have another pixel: logits are near 0 all over the image.
        assert_equal(result.masks, released["refined"], IMAGE.shape[:2], different_share=0.1)


@pytest.mark.parametrize("layers", range(len(BLOB_OPTIONS)))
def test_the_generator_gives_the_released_ones_masks_of_a_decoder_of_blobs(
    released: dict[str, Any], layers: int
) -> None:
    """With 0, 1 and 2 layers of crops, and candidates for every filter. A bit less in a resized pixel or in a point
    would give other blobs."""
    [result] = generate_masks([IMAGE], BlobSegmenter(), Recipe(**THRESHOLD, **BLOB_OPTIONS[layers]))
    funnel = result.funnel
    assert min(len(result.masks), funnel.low_predicted_iou, funnel.low_stability, funnel.duplicate_in_crop) > 10
    assert not layers or min(funnel.at_crop_edge, funnel.duplicate_across_crops) > 10
    theirs = released["blobs"][layers]
    # The released code rounds the points that it gives back to float32.
    points = [each.pop("point_coords")[0] for each in theirs]
    np.testing.assert_allclose([mask.point_xy for mask in result.masks], points, rtol=1e-6)
    assert [mask.counts for mask in result.masks] == [each["segmentation"]["counts"] for each in theirs]
    assert [mask.predicted_iou for mask in result.masks] == [each["predicted_iou"] for each in theirs]
    assert [list(mask.crop_box_xywh) for mask in result.masks] == [each["crop_box"] for each in theirs]


def test_every_kind_of_prompt_is_answered_as_by_the_released_predictor(
    answers: Path, segmenter: TorchSegmenter
) -> None:
    """Points, a box, both, and an earlier answer; three masks and the one that is not allowed to waver."""
    image, told = EmbeddedImage(segmenter, IMAGE), np.load(answers / "prompts.npz")
    earlier = told[answer_of(0, multimask=True, part=2)][:1]
    for number, prompt in enumerate((*PROMPTS, {"mask": earlier})):
        points, labels, box, mask = (prompt.get(name) for name in ("point_coords", "point_labels", "box", "mask"))
        asked = prompt_of(points, labels, box, mask, mask_side=image.mask_side)
        for multimask in (True, False):
            answer = image.answer(asked, multimask=multimask)
            for part, mine in enumerate((answer.logits_MHW, answer.predicted_iou_M, answer.logits_Mhw)):
                wanted = torch.from_numpy(told[answer_of(number, multimask=multimask, part=part)])
                torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-4 * float(1 + wanted.abs().max()))
