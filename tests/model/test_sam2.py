"""Our SAM 2 against the one of transformers, on the same weights; and its fast decoder against its plain one."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from benchmarks.reference.hugging_face import hugging_face_2
from benchmarks.reference.random_sam_2 import random_sam_2
from model.bundled import BUNDLED
from model.config import MODELS
from model.hiera import Trunk
from model.load import load_sam
from model.point_decoder import PointDecoder
from model.sam import Sam
from tests.model.sam2 import SMALL, published


@pytest.fixture(scope="module", params=["random", "bundled"])
def sam(request: pytest.FixtureRequest) -> Sam:
    """Random weights, and those that come with Maskmill."""
    if request.param == "random":
        return random_sam_2(SMALL, seed=7)
    return load_sam(BUNDLED["small"].read_bytes(), expected=MODELS["small"])


@pytest.fixture(scope="module")
def theirs(sam: Sam) -> Any:
    return hugging_face_2(sam)


def images(sam: Sam) -> Tensor:
    generator, side = torch.Generator().manual_seed(1), sam.config.input_side
    return torch.randn(1, 3, side, side, generator=generator, dtype=torch.float64).float()


def assert_close(ours: Tensor, theirs: Tensor, *, share: float) -> None:
    """To a share of how far the values spread."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=share * float(theirs.std()))


@torch.inference_mode()
def test_the_encoder_equals_the_one_of_transformers(sam: Sam, theirs: Any) -> None:
    """Every claim of SAM 2's masks rests on this."""
    embedding, fine = sam.embed(images(sam))
    assert fine is not None
    for mine, wanted in zip((*fine, embedding), theirs.get_image_embeddings(images(sam)), strict=True):
        assert_close(mine, wanted, share=1e-5)


@torch.inference_mode()
def test_the_encoder_equals_the_one_of_transformers_in_double_precision(sam: Sam, theirs: Any) -> None:
    """There sums of another order are no excuse. The neck of transformers adds in float32, so it is left out."""
    ours, other = copy.deepcopy(sam).double(), copy.deepcopy(theirs).double()
    ours.load_state_dict(sam.state_dict())  # the positions are made of the tables when these are loaded
    stages = other.vision_encoder.backbone(images(sam).double()).intermediate_hidden_states
    for mine, wanted in zip(cast(Trunk, ours.image_encoder.trunk)(images(sam).double()), stages, strict=True):
        assert_close(mine, wanted, share=1e-12)


@pytest.mark.parametrize("multimask", [True, False])
@torch.inference_mode()
def test_every_kind_of_prompt_gets_the_answer_of_transformers(sam: Sam, theirs: Any, *, multimask: bool) -> None:
    """Points, a box, an earlier answer, and all of them; of single masks those that waver give way."""
    seen = sam.embed(images(sam))
    assert seen.fine is not None
    side, mask_side = sam.config.input_side, sam.config.mask_side
    torch.manual_seed(3)
    coords, labels = torch.rand(3, 2, 2) * side, torch.tensor([[1, 0], [1, 1], [0, 1]])
    boxes, masks = torch.rand(3, 4) * side, torch.randn(3, 1, mask_side, mask_side)
    for points_given, box_given, mask_given in [(1, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1)]:
        logits, scores = sam.answer(
            seen,
            points=(coords, labels) if points_given else None,
            boxes_P4=boxes if box_given else None,
            masks_P1hw=masks if mask_given else None,
            multimask=multimask,
        )
        answers = [
            theirs(
                image_embeddings=[*map(torch.clone, (*seen.fine, seen.embedding_1Cgg))],
                input_points=coords[None, [p]] if points_given else None,
                input_labels=labels[None, [p]] if points_given else None,
                input_boxes=boxes[None, [p]] if box_given else None,
                input_masks=masks[[p]] if mask_given else None,
                multimask_output=multimask,
            )
            for p in range(3)
        ]
        assert_close(logits, torch.cat([answer.pred_masks[0] for answer in answers]), share=1e-4)
        assert_close(scores, torch.cat([answer.iou_scores[0] for answer in answers]), share=1e-4)


@torch.inference_mode()
def test_every_tensor_moves_an_answer() -> None:
    """One that is not read would load and be silently ignored. What all keys have in common, no softmax can see."""
    side = 64
    sizes = {"dims": (8, 16, 32, 64), "depths": (1, 1, 2, 1), "decoder_dim": 32, "decoder_mlp": 32, "decoder_depth": 1}
    sam = random_sam_2(replace(SMALL, input_side=side, global_blocks=(3,), **sizes), seed=7)
    image_13SS = torch.randn(1, 3, side, side)
    coords, labels, boxes = torch.full((1, 1, 2), 39.0), torch.ones(1, 1), torch.tensor([[2.0, 3.0, 50.0, 60.0]])
    masks = torch.randn(1, 1, sam.config.mask_side, sam.config.mask_side)

    def answers() -> Tensor:
        seen = sam.embed(image_13SS)
        parts: list[Tensor] = []
        for points, box, mask in (((coords, labels), None, None), ((coords, 0 * labels), boxes, masks)):
            sparse, dense = sam.prompt_encoder(points=points, boxes_P4=box, masks_P1hw=mask)
            tokens, image = sam.mask_decoder.attend(
                seen.embedding_1Cgg, sam.prompt_encoder.get_dense_pe(), sparse, dense
            )
            logits = sam.mask_decoder.mask_logits(tokens, image, slice(None), seen.fine)
            parts += [logits.flatten(), sam.mask_decoder.predicted_iou(tokens).flatten()]
        return torch.cat(parts)

    before, trunk = answers(), cast(Trunk, sam.image_encoder.trunk)
    for name, tensor in sam.state_dict().items():
        kept = tensor.clone()
        tensor.add_(torch.rand_like(tensor))
        trunk.place()
        assert name.endswith(".k_proj.bias") or (answers() - before).abs().max() > 1e-4, name
        tensor.copy_(kept)


@torch.inference_mode()
def test_points_get_the_plain_decoders_masks_and_scores(sam: Sam) -> None:
    """The decoder for single points is rearranged; the object's token and the fine maps have to find their place."""
    seen, coords_P2 = sam.embed(images(sam)), torch.rand(19, 2) * sam.config.input_side
    decoder, g = PointDecoder(sam), sam.config.grid_side
    ours = decoder.decode(decoder.share(*seen), coords_P2, pred_iou_thresh=-math.inf, cells_hw=(g, g))
    logits, scores = published(sam, seen, coords_P2)
    assert_close(ours.logits_PMhw, logits, share=3e-5)
    torch.testing.assert_close(ours.predicted_iou_PM, scores, rtol=0, atol=3e-6)
    assert 0 < float(scores.min()) < float(scores.max()) < 1
