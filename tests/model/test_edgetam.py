"""Our EdgeTAM against the one of transformers, on the same random weights, and the files of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from benchmarks.reference.edgetam import hugging_face_edgetam, names_of_a_video_model
from benchmarks.reference.random_sam_2 import calibrated_sam_2
from model import sam2_layouts
from model.config import MODELS, RepVitConfig
from model.first_values import without_first_values
from model.load import CheckpointError, check_weights, load_sam
from model.point_decoder import PointDecoder
from model.repvit import RepVit
from model.sam import Sam
from model.segmenter import TorchSegmenter
from model.training.scenes import held_out_scene
from pipeline.masks.generator import generate_masks
from pipeline.settings import Recipe
from tests.model.checkpoints import as_pth, as_safetensors, assert_same
from tests.model.sam2 import unread_by_the_encoder
from tests.model.test_sam2 import assert_close

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed: make setup does it")

SMALL = RepVitConfig(
    "edgetam",
    dims=(16, 32, 48, 64),
    depths=(1, 2, 3, 1),
    input_side=256,
    decoder_dim=64,
    decoder_mlp=128,
    iou_head_dim=64,
)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return hugging_face_edgetam(SMALL, seed=3)


@pytest.fixture(scope="module")
def sam(theirs: Any) -> Sam:
    return load_sam(as_safetensors(theirs.state_dict()), expected=SMALL)


@torch.inference_mode()
def test_points_get_the_masks_and_scores_of_transformers(sam: Sam, theirs: Any) -> None:
    """From the image on: encoder, neck, names of the tensors, and the decoder for single points."""
    images, coords_P2 = torch.randn(1, 3, 256, 256), torch.rand(5, 2) * 256
    seen = sam.embed(images)
    embeddings = theirs.get_image_embeddings(images)
    assert seen.fine is not None
    for mine, wanted in zip((*seen.fine, seen.embedding_1Cgg), embeddings, strict=True):
        assert_close(mine, wanted, share=1e-4)
    asked = theirs(image_embeddings=embeddings, input_points=coords_P2[None, :, None])
    decoder, g = PointDecoder(sam), SMALL.grid_side
    ours = decoder.decode(decoder.share(*seen), coords_P2, pred_iou_thresh=-math.inf, cells_hw=(g, g))
    assert_close(ours.logits_PMhw, asked.pred_masks[0], share=1e-4)
    torch.testing.assert_close(ours.predicted_iou_PM, asked.iou_scores[0], rtol=0, atol=3e-6)
    assert float(asked.iou_scores.std()) > 0.01


@torch.inference_mode()
def test_the_encoder_equals_timms_in_double_precision(sam: Sam, theirs: Any) -> None:
    """There sums of another order, and batch norms that became part of convolutions, are no excuse."""
    ours, other = copy.deepcopy(cast(RepVit, sam.image_encoder)).double(), copy.deepcopy(theirs.vision_encoder).double()
    images = torch.randn(1, 3, 256, 256, dtype=torch.float64)
    for mine, wanted in zip(ours.trunk(images), other.backbone(images).last_hidden_state, strict=True):
        assert_close(mine.permute(0, 3, 1, 2), wanted, share=1e-12)


def test_every_tensor_of_the_encoder_moves_what_the_decoder_gets(theirs: Any) -> None:
    sam = load_sam(as_safetensors(theirs.state_dict()), expected=replace(SMALL, input_side=64))
    assert unread_by_the_encoder(sam, torch.randn(1, 3, 64, 64)) == []


def test_both_layouts_load_and_what_only_videos_need_is_told(sam: Sam, theirs: Any) -> None:
    """The released edgetam.pt has counters of batches too, and the parts that remember frames."""
    image_model = theirs.state_dict()
    video = {name: torch.zeros(1) for name in names_of_a_video_model(SMALL) - image_model.keys()}
    assert len(video) == 156
    released = sam2_layouts.released(sam.state_dict())
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in released if "_var" in name
    }
    remembering = {f"{part}.layers.0.x": torch.zeros(1) for part in ("spatial_perceiver", "memory_attention")}
    presence = {"sam_mask_decoder.pred_obj_score_head.layers.0.weight": torch.zeros(1)}
    assert "image_encoder.trunk.body.stages_3.blocks.0.token_mixer.conv1.bn.running_var" in released
    for data in (
        as_safetensors(image_model | video),
        as_pth({"model": released | counters | remembering | presence}),
    ):
        assert_same(load_sam(data, expected=SMALL).state_dict(), sam.state_dict())
        with pytest.raises(CheckpointError, match=r"not a sam2\.1_tiny: .*encoder of another family"):
            check_weights("sam2.1_tiny", data)


def test_the_files_of_the_named_model_say_what_they_are() -> None:
    """A run's metadata has family, layout and what was dropped."""
    with torch.device("meta"), without_first_values():
        shapes = Sam(MODELS["edgetam"]).state_dict()
    state: dict[str, Tensor] = {name: torch.zeros((), dtype=torch.half).expand(t.shape) for name, t in shapes.items()}
    told = [
        check_weights("edgetam", as_pth(layout(state) | {"no_obj_ptr": torch.zeros(1)}))
        for layout in (sam2_layouts.released, sam2_layouts.hugging_face)
    ]
    assert [(each.family, each.layout) for each in told] == [("edgetam", "released"), ("edgetam", "hugging_face")]
    assert [each.notes[0].partition(":")[0] for each in told] == ["what only videos need (1"] * 2
    del state["no_mem_embed"]
    with pytest.raises(CheckpointError, match=r"missing no_mem_embed$"):
        check_weights("edgetam", as_pth(state))


def test_the_generator_finds_masks_with_it() -> None:
    """Stretch, points and the upscaling of fine maps find together."""
    image_HW3 = held_out_scene(77, size_hw=(90, 150)).rgb_HW3
    sam = calibrated_sam_2(replace(SMALL, decoder_dim=128), image_HW3, seed=1)
    recipe = Recipe(points_per_side=6, pred_iou_thresh=0.6, stability_score_thresh=0.6, box_nms_thresh=0.98)
    [result] = generate_masks([image_HW3], TorchSegmenter(sam, weights_sha256=""), recipe)
    assert len(result.masks) > 3
