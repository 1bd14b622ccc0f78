"""The device's part of an image on `meta` tensors, which have sizes and no data: what needs data on the host raises.

So it is shown for all images what the pretended device shows for those that it is given. ViT-H costs seconds here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from model.config import CONFIGS
from model.crop_batches import CropBatches
from model.first_values import without_first_values
from model.point_decoder import Predictions
from model.sam import Sam
from model.segmenter import EncodedCrop, TorchSegmenter
from tests.gpu.counting import META, Launches, OneKernelForAttention
from tests.gpu.pretended import no_inference_mode

CROP_HW3 = np.zeros((1500, 2250, 3), np.uint8)
POINTS = 1024, 256, 64
"""Of a crop, in the layers of `sa1b`; `sam` has the first alone."""
CROPS = 1, 4, 16
BLOCKS = {1024: 1024, 256: 256, 64: 64}
"""Points of a block, by those that are asked."""


@pytest.fixture(scope="module")
def vit_h() -> Iterator[TorchSegmenter]:
    with no_inference_mode(), OneKernelForAttention():
        with META, without_first_values():
            sam = Sam(CONFIGS["vit_h"])
            for layer in sam.image_encoder.modules():
                if isinstance(layer, nn.Linear):
                    layer.to(torch.bfloat16)
        yield TorchSegmenter(sam, weights_sha256="", precision="bf16")


@pytest.fixture(scope="module")
def encoded(vit_h: TorchSegmenter) -> tuple[EncodedCrop, dict[int, Launches]]:
    """A crop, and what it took by how many are encoded at once."""
    launches: dict[int, Launches] = {}
    for count in (1, 7):
        with Launches() as launches[count]:
            crops = vit_h.encode([CROP_HW3] * count)
    return crops[0], launches


@pytest.fixture(scope="module")
def captured(vit_h: TorchSegmenter, encoded: tuple[EncodedCrop, dict[int, Launches]]) -> dict[int, Launches]:
    """Those of them that are one launch, once the batch's graph is there."""
    launches: dict[int, Launches] = {}
    for count in encoded[1]:
        with Launches() as launches[count]:
            cast(CropBatches, vit_h._batches).computed(torch.empty(count, 3, 1024, 1024, device=META))
    return launches


@pytest.fixture(scope="module")
def decoded(
    vit_h: TorchSegmenter, encoded: tuple[EncodedCrop, dict[int, Launches]]
) -> dict[int, tuple[Predictions, Launches]]:
    """By how many points are asked."""
    answers: dict[int, tuple[Predictions, Launches]] = {}
    for points in POINTS:
        with Launches() as launches:
            answer = vit_h.decode(encoded[0], np.zeros((points, 2)), pred_iou_thresh=0.88)
        answers[points] = answer, launches
    return answers


@pytest.fixture(scope="module")
def attended(vit_h: TorchSegmenter, encoded: tuple[EncodedCrop, dict[int, Launches]]) -> dict[int, Launches]:
    """A block of points up to the image as they see it: one launch, once the graph of its size is there."""
    launches: dict[int, Launches] = {}
    for points in BLOCKS.values():
        with Launches() as launches[points]:
            vit_h._decoder.with_rows_of_its_own((encoded[0].image, torch.empty(points, 2, device=META)))
    return launches


def test_a_crop_is_encoded_without_its_pixels(encoded: tuple[EncodedCrop, dict[int, Launches]]) -> None:
    """Resize, encoder and the part of the decoder that prompts share: nothing in them depends on a value."""
    assert encoded[0].image.upscaled_NE.device == META


def test_the_points_of_a_crop_are_decoded_without_knowing_which_masks_are_wanted(
    vit_h: TorchSegmenter, decoded: dict[int, tuple[Predictions, Launches]]
) -> None:
    """So all of it can be queued at once."""
    answer, _ = decoded[POINTS[0]]
    assert vit_h.points_at_once == POINTS[0]
    assert answer.logits_PMhw.shape == (1024, 3, 256, 256)
    assert answer.logits_PMhw.device == answer.live_PM.device == META


def test_an_image_is_no_more_launches_than_docs_say(
    encoded: tuple[EncodedCrop, dict[int, Launches]],
    captured: dict[int, Launches],
    decoded: dict[int, tuple[Predictions, Launches]],
    attended: dict[int, Launches],
) -> None:
    """Without those that measure and trace masks, some 15 a crop. Whoever makes fewer lowers the numbers here.

    A graph is one launch beside its copies, one for each type of numbers: three in for a block of points, one in and
    two out for a batch of crops.
    """
    assert (captured[1].of.total(), captured[7].of.total()) == (389, 845)
    assert {attended[points].of.total() for points in POINTS} == {62}
    batch = {count: launches.of.total() - captured[count].of.total() + 4 for count, launches in encoded[1].items()}
    points = {
        count: decoded[count][1].of.total() - count // block * (attended[block].of.total() - 4)
        for count, block in BLOCKS.items()
    }
    image = batch[1] + points[1024]
    with_crops = 3 * batch[7] + sum(crops * points[count] for crops, count in zip(CROPS, POINTS, strict=True))
    assert image <= 26
    assert with_crops <= 390


def test_the_bytes_of_a_crops_points_and_of_its_encoding_are_no_more_than_docs_say(
    encoded: tuple[EncodedCrop, dict[int, Launches]], decoded: dict[int, tuple[Predictions, Launches]]
) -> None:
    """What its memory takes to move them is a floor of a GPU's time. GB, of 1,024 points with all their masks."""
    assert decoded[1024][1].gigabytes <= 14.15
    assert encoded[1][1].gigabytes <= 15.5
