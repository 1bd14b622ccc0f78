"""The device's part of an image on `meta` tensors, which have sizes and no data: what needs data on the host raises.

So it is shown for all images what the pretended device shows for those that it is given. ViT-H costs seconds here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from model.config import CONFIGS
from model.sam import Sam
from model.segmenter import EncodedCrop, TorchSegmenter
from tests.gpu.pretended import FREE, no_inference_mode

META = torch.device("meta")
CROP_HW3 = np.zeros((1500, 2250, 3), np.uint8)
POINTS_P2 = np.zeros((1024, 2))


class Launches(TorchDispatchMode):
    """Counts the operators that are kernels on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, result = func._schema.name.removeprefix("aten::"), func(*args, **(kwargs or {}))
        if name not in FREE and any(isinstance(each, Tensor) and each.device == META for each in tree_iter(result)):
            self.of[name] += 1
        return result


class OneKernelForAttention(TorchFunctionMode):
    """As a GPU has it. For `meta` torch takes it apart."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0]).zero_()
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def vit_h() -> Iterator[TorchSegmenter]:
    with no_inference_mode(), OneKernelForAttention():
        with META:
            sam = Sam(CONFIGS["vit_h"])
        yield TorchSegmenter(sam, weights_sha256="")


@pytest.fixture(scope="module")
def encoded(vit_h: TorchSegmenter) -> tuple[EncodedCrop, Launches]:
    with Launches() as launches:
        [crop] = vit_h.encode([CROP_HW3])
    return crop, launches


def test_a_crop_is_encoded_without_its_pixels(encoded: tuple[EncodedCrop, Launches]) -> None:
    """Resize, encoder and the part of the decoder that prompts share: nothing in them depends on a value."""
    crop, launches = encoded
    assert crop.image.upscaled_NE.device == META
    assert launches.of.total() <= 1055


def test_the_points_of_a_crop_are_decoded_without_knowing_which_masks_are_wanted(
    vit_h: TorchSegmenter, encoded: tuple[EncodedCrop, Launches]
) -> None:
    """So all of it can be queued at once. With `sam` there are four blocks of points, and sixteen steps for masks."""
    assert vit_h.points_at_once == len(POINTS_P2)
    with Launches() as launches:
        answer = vit_h.decode(encoded[0], POINTS_P2, pred_iou_thresh=0.88)
    assert answer.logits_PMhw.shape == (1024, 3, 256, 256)
    assert answer.logits_PMhw.device == answer.live_PM.device == META
    assert launches.of.total() <= 1271
