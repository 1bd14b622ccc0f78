"""The encoder for tensor cores against the one that all masks are held to.

Its kernels are interpreted, and a CUDA graph is a list of kernels with fixed addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.config import SamConfig
from model.crop_batches import batches_for
from model.fused_encoder import FusedEncoder, standardised
from model.image_encoder import ImageEncoder
from model.precisions import FORMS
from model.preprocess import fit_into_square
from model.resize import resize_bilinear
from model.sam import Sam
from model.segmenter import EncodedCrop, TorchSegmenter
from tests.gpu.interpreted import interpreted_kernels
from tests.gpu.pretended import OnDevice, inner_of, moved, pretended_device
from tests.masks.conftest import scene
from tests.model.test_equality import random_sam

SMALL = SamConfig(
    "small",
    embed_dim=16,
    depth=1,
    heads=1,
    global_blocks=(),
    window=3,
    input_side=32,
    decoder_dim=32,
    decoder_heads=2,
    decoder_mlp=32,
    iou_head_dim=32,
)
"""2 x 2 tokens in a window of 3."""
WIDE = replace(SMALL, embed_dim=80, depth=2, global_blocks=(1,), window=2, input_side=48)
"""3 x 3 tokens, so that three of four windows reach beyond the grid, and a head of 80 channels, as ViT-H has them."""
WITHIN = {"bf16x3": 2e-5, "bf16": 1e-2}
"""Of the norm of what float32 gives: 2^-16 and 2^-8, some times over."""


@pytest.fixture
def interpreted() -> Iterator[None]:
    with pretended_device(), interpreted_kernels():
        yield


def off(ours: Tensor, theirs: Tensor) -> float:
    return float((inner_of(ours) - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("precision", FORMS)
def test_the_fused_encoder_gives_what_the_plain_one_gives(interpreted: None, precision: str) -> None:
    """Windows and the whole grid, padding, relative positions, and a head that is cut into 64 and 16 channels."""
    encoder = random_sam(WIDE).image_encoder
    assert isinstance(encoder, ImageEncoder)
    images_13SS = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        plain = encoder(images_13SS)
        moved(encoder)
        error = off(FusedEncoder(encoder, FORMS[precision])(OnDevice(images_13SS)), plain)
    assert WITHIN[precision] / 100 < error < WITHIN[precision]


@pytest.mark.parametrize("crop_hw", [(20, 15), (9, 16)])
def test_the_encoders_input_is_that_of_the_plain_resize_bit_for_bit(
    interpreted: None, crop_hw: tuple[int, int]
) -> None:
    """Another grey level is another mask. One side longer, and one that keeps its length; a crop within an image."""
    sam, resized_hw = Sam(replace(SMALL, input_side=16)), fit_into_square(crop_hw, 16)
    crop_HW3 = torch.randint(0, 256, (24, 24, 3), dtype=torch.uint8)[3 : 3 + crop_hw[0], 5 : 5 + crop_hw[1]]
    resized_3HW = resize_bilinear(crop_HW3, *resized_hw).permute(2, 0, 1)
    plain_3SS, out_3SS = sam.normalise(resized_3HW[None].contiguous())[0], torch.full((3, 16, 16), torch.nan)
    standardised(crop_HW3, resized_hw, sam, out_3SS)
    assert torch.equal(out_3SS, plain_3SS)


def test_an_encoding_is_the_same_by_a_graph_and_without_and_beside_whatever_neighbour() -> None:
    """A batch of two is filled up to three, and its graph reads the pixels of each call anew."""
    sam, scenes = random_sam(replace(SMALL, input_side=16)), [scene(12, 16, seed=seed) for seed in (1, 2)]
    plain = _encodings(TorchSegmenter(sam, weights_sha256="").encode(scenes))
    with pretended_device() as start, interpreted_kernels():
        moved(sam)
        segmenter = TorchSegmenter(sam, weights_sha256="", precision="bf16x3")
        segmenter.encode([scenes[0], scenes[0]])
        log = start()
        by_graph = _encodings(segmenter.encode(scenes))
        assert log.waits.total() == 0
        assert log.launches.total() == 2 * 2 + 1 + 3, "two resizes, the filling, and the graph between two copies"
        segmenter.spare_memory()
        kernel_by_kernel = _encodings(segmenter.encode(scenes[::-1]))[::-1]
    for one, other, reference in zip(by_graph, kernel_by_kernel, plain, strict=True):
        assert torch.equal(one, other)
        assert off(one, reference) < WITHIN["bf16x3"]


def _encodings(crops: list[EncodedCrop]) -> list[Tensor]:
    """Before and after the part that the prompts share, one behind the other."""
    both = ((crop.seen.embedding_1Cgg, crop.image.upscaled_NE) for crop in crops)
    return [torch.cat([inner_of(each).flatten() for each in pair]) for pair in both]


def test_crops_pass_one_by_one_where_nothing_is_fused() -> None:
    """On a CPU, in float32, and where there is no Triton."""
    sam = random_sam(SMALL)
    share = TorchSegmenter(sam, weights_sha256="")._decoder.share
    assert batches_for(sam, share, "bf16x3") is None
    with pretended_device(), pytest.MonkeyPatch.context() as patch:
        moved(sam)
        assert batches_for(sam, share, "bf16x3") is not None
        assert batches_for(sam, share, "fp32") is None
        patch.setitem(__import__("sys").modules, "triton", None)
        assert batches_for(sam, share, "bf16x3") is None
