"""Our Segment Anything against the two public implementations, on the same random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference.hugging_face import hugging_face
from benchmarks.reference.official import OfficialSegmenter, build_official
from model.config import CONFIGS, MODELS, ModelConfig, SamConfig
from model.first_values import without_first_values
from model.layouts import to_hugging_face
from model.mask_decoder import Embedded
from model.sam import Sam
from model.segmenter import TorchSegmenter

TOLERANCE = 1e-4
SLIM, LESS_SLIM = (cast(SamConfig, MODELS[name]) for name in ("slimsam_77", "slimsam_50"))
SIZES = {name: config for name, config in MODELS.items() if isinstance(config, SamConfig)}
FEW_BLOCKS = {
    "tiny": CONFIGS["tiny"],
    "vit_b": replace(CONFIGS["vit_b"], depth=2, global_blocks=(1,), input_side=256),
    "slimsam_77": replace(SLIM, depth=2, global_blocks=(1,), input_side=256),
    "slimsam_50": replace(LESS_SLIM, depth=2, global_blocks=(1,), input_side=256),
}
"""The bundled model, and the widths, heads and windows of a released one and of two cut from it in one block of each
kind: what the other ten compute is the same again. Windows need padding at 256 as they do at 1024."""


def random_sam(config: SamConfig) -> Sam:
    """Weights large enough that every part of the network shows in the output."""
    torch.manual_seed(11)
    sam = Sam(config).eval().requires_grad_(requires_grad=False)
    for module in sam.modules():
        for parameter in module.parameters(recurse=False):
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            offset = 1.0 if isinstance(module, nn.LayerNorm) and parameter is module.weight else 0.0
            parameter.copy_(offset + scale * torch.randn_like(parameter))
    return sam


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


def on_pixels(logits_Nhw: Tensor, config: ModelConfig, resized_hw: tuple[int, int]) -> Tensor:
    """Logits at the input square's resolution, without its padding: all that a mask is made of."""
    side = config.input_side
    square_N1SS = F.interpolate(logits_Nhw[:, None], (side, side), mode="bilinear", align_corners=False)
    return square_N1SS[:, 0, : resized_hw[0], : resized_hw[1]]


@pytest.mark.parametrize("name", list(SIZES))
def test_every_size_has_the_released_tensors(name: str) -> None:
    """An official checkpoint loads into a network that asks for its names and shapes, all of them and no others."""
    with torch.device("meta"), without_first_values():
        ours, theirs = Sam(SIZES[name]).state_dict(), build_official(SIZES[name]).state_dict()
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: t.shape for key, t in theirs.items()}


def test_hugging_face_names_are_those_of_transformers() -> None:
    """Our table of names is only right if the library that owns the layout agrees, key by key."""
    from transformers import SamConfig as HuggingFaceConfig
    from transformers import SamModel

    with torch.device("meta"), without_first_values():
        theirs = SamModel(HuggingFaceConfig()).state_dict()
        ours = to_hugging_face(Sam(CONFIGS["vit_b"]).state_dict())
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }


@pytest.mark.parametrize("name", list(FEW_BLOCKS))
@torch.inference_mode()
def test_embedding_logits_and_scores_equal_the_released_code(name: str) -> None:
    """Every claim of equal masks rests on this."""
    sam = random_sam(FEW_BLOCKS[name])
    official = build_official(FEW_BLOCKS[name])
    official.load_state_dict(sam.state_dict())
    side, mask_side = sam.config.input_side, sam.config.mask_side
    images_13SS = torch.randn(1, 3, side, side)
    embedding = sam.image_encoder(images_13SS)
    assert_close(embedding, official.image_encoder(images_13SS))
    assert_close(sam.prompt_encoder.get_dense_pe(), official.prompt_encoder.get_dense_pe())

    coords, labels = torch.rand(3, 2, 2, dtype=torch.float64) * side, torch.tensor([[1, 0], [1, 1], [0, 1]])
    boxes, masks = torch.rand(3, 4) * side, torch.randn(3, 1, mask_side, mask_side)
    for points_given, box_given, mask_given in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]:
        points = (coords, labels) if points_given else None
        box, mask = boxes if box_given else None, masks if mask_given else None
        sparse, dense = sam.prompt_encoder(points=points, boxes_P4=box, masks_P1hw=mask)
        copied = (coords.clone(), labels) if points_given else None  # the released code writes into its input
        their_sparse, their_dense = official.prompt_encoder(points=copied, boxes=box, masks=mask)
        assert_close(sparse, their_sparse)
        assert_close(dense, their_dense)
        for multimask in (True, False):
            prompt = {
                "image_embeddings": embedding,
                "image_pe": sam.prompt_encoder.get_dense_pe(),
                "sparse_prompt_embeddings": sparse,
                "dense_prompt_embeddings": dense,
                "multimask_output": multimask,
            }
            for ours, theirs in zip(sam.mask_decoder(**prompt), official.mask_decoder(**prompt), strict=True):
                assert_close(ours, theirs)


@pytest.mark.parametrize("name", list(FEW_BLOCKS))
@torch.inference_mode()
def test_embedding_logits_and_scores_equal_transformers(name: str) -> None:
    """The second witness, from another team, through the other checkpoint layout."""
    sam = random_sam(FEW_BLOCKS[name])
    theirs = hugging_face(sam, norm_eps=1e-5)
    side = sam.config.input_side
    images_13SS = torch.randn(1, 3, side, side)
    embedding = sam.image_encoder(images_13SS)
    assert_close(embedding, theirs.get_image_embeddings(images_13SS))
    coords, labels = torch.rand(4, 1, 2) * side, torch.ones(4, 1, dtype=torch.int64)
    logits, predicted_iou = sam.answer(Embedded(embedding), points=(coords, labels), multimask=True)
    answer = theirs(
        image_embeddings=embedding, input_points=coords[None], input_labels=labels[None], multimask_output=True
    )
    torch.testing.assert_close(logits, answer.pred_masks[0], rtol=0, atol=1e-5 * max(1, float(logits.std())))
    torch.testing.assert_close(predicted_iou, answer.iou_scores[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("crop_hw", [(97, 300), (300, 97), (256, 256), (1, 1), (40, 1000)])
def test_a_segmenter_predicts_what_the_released_predictor_predicts(crop_hw: tuple[int, int]) -> None:
    """Resizing, padding and the float64 point frame are where wrappers of Segment Anything usually drift."""
    sam = random_sam(CONFIGS["tiny"])
    official = build_official(CONFIGS["tiny"])
    official.load_state_dict(sam.state_dict())
    rng = np.random.default_rng(5)
    crop_HW3 = rng.integers(0, 256, (*crop_hw, 3), dtype=np.uint8)
    points_xy_P2 = rng.random((9, 2)) * np.array([crop_hw[1], crop_hw[0]])
    ours, theirs = TorchSegmenter(sam, weights_sha256=""), OfficialSegmenter(official)
    [encoded], [their_encoded] = ours.encode([crop_HW3]), theirs.encode([crop_HW3])
    assert encoded.resized_hw == tuple(their_encoded.resized_hw)
    everything = theirs.decode(their_encoded, points_xy_P2, pred_iou_thresh=-1e9)
    threshold = float(everything.predicted_iou_PM.flatten().sort().values[13:15].mean())  # between two, not on one
    for limit in (-1e9, threshold, 1e9):
        mine = ours.decode(encoded, points_xy_P2, pred_iou_thresh=limit)
        other = theirs.decode(their_encoded, points_xy_P2, pred_iou_thresh=limit)
        assert torch.equal(mine.live_PM, other.live_PM)
        assert_close(mine.predicted_iou_PM, other.predicted_iou_PM)
        live_Nhw = [masks.logits_PMhw[masks.live_PM] for masks in (mine, other)]
        assert_close(*(on_pixels(logits_Nhw, sam.config, encoded.resized_hw) for logits_Nhw in live_Nhw))
