"""Full-size logits and boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipeline.masks.pixels import MOST_STEP_PIXELS, STEP_PIXELS, mask_boxes, masks_per_step, upscale_logits

from tests.official import segment_anything


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("crop_hw", [(401, 601), (601, 401), (40, 60), (31, 977), (1, 1)])
def test_upscaled_logits_are_the_released_ones_to_the_last_bit(mini_sam: Any, crop_hw: tuple[int, int]) -> None:
    """Any count of masks: torch's CPU kernels round by the number of channels and of threads."""
    torch.manual_seed(2)
    logits_P3hw = torch.randn(4, 3, 64, 64)
    scale = 256 / max(crop_hw)
    resized_hw = int(crop_hw[0] * scale + 0.5), int(crop_hw[1] * scale + 0.5)
    released_NHW = mini_sam.postprocess_masks(logits_P3hw, resized_hw, crop_hw).flatten(0, 1)
    for count in (12, 7, 1):
        chosen_N = torch.randperm(12)[:count]
        ours_NHW = upscale_logits(
            logits_P3hw.flatten(0, 1)[chosen_N], input_side=256, resized_hw=resized_hw, crop_hw=crop_hw
        )
        assert torch.equal(ours_NHW, released_NHW[chosen_N])


def test_boxes_are_the_released_ones_and_zero_for_empty_masks() -> None:
    """Inclusive corners: the width of the output is one less than the pixels."""
    torch.manual_seed(4)
    masks_NHW = torch.rand(30, 23, 17) > torch.linspace(0.8, 1, 30)[:, None, None]
    masks_NHW[3] = True
    assert not masks_NHW[-1].any()
    boxes_N4 = mask_boxes(masks_NHW)
    assert torch.equal(boxes_N4, segment_anything.utils.amg.batched_mask_to_box(masks_NHW))
    assert boxes_N4[3].tolist() == [0, 0, 16, 22]
    assert mask_boxes(masks_NHW[:0]).shape == (0, 4)


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([256, 1024]))
def test_no_step_holds_more_pixels_than_its_budget(height: int, width: int, side: int) -> None:
    """Memory must not grow with the number of candidates, nor by more than one mask with the size of the image."""
    pixels = max(height * width, side**2)
    step = masks_per_step((height, width), side)
    assert step == 1 or (step % 3 == 0 and step * pixels <= max(STEP_PIXELS, 3 * pixels) <= MOST_STEP_PIXELS)
