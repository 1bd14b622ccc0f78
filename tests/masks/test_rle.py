"""Run lengths."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference.official import segment_anything
from pipeline.masks.rle import Rle, rle_problem
from tests.masks.oracle import decode_counts, decode_mask, encode_mask, mask_boxes

amg = segment_anything.utils.amg
Mask_HW = npt.NDArray[np.bool_]


def named_masks() -> dict[str, Mask_HW]:
    masks = {name: np.zeros((7, 9), dtype=np.bool_) for name in ["empty", "pixel", "last_pixel", "column", "row"]}
    masks["pixel"][2, 3] = True
    masks["last_pixel"][-1, -1] = True
    masks["column"][:, 4] = True
    masks["row"][5] = True
    checks = (np.indices((40, 41)).sum(axis=0) % 2).astype(np.bool_)
    tall = np.zeros((3000, 800), dtype=np.bool_)
    tall[:, 300:] = True  # runs of more than a million: several characters each
    first = np.zeros((7, 9), dtype=np.bool_)
    first[0, 0] = True
    one = np.ones((1, 1), dtype=np.bool_)
    return masks | {
        "full": np.ones((7, 9), dtype=np.bool_),
        "first_pixel": first,
        "checks": checks,
        "tall": tall,
        "one_by_one": one,
        "one_by_one_empty": ~one,
    }


def released_counts(mask_HW: Mask_HW) -> str:
    [runs] = amg.mask_to_rle_pytorch(torch.from_numpy(mask_HW.copy())[None])
    return amg.coco_encode_rle(runs)["counts"]


def assert_described(rle: Rle, mask_HW: Mask_HW) -> None:
    assert rle.packed() == released_counts(mask_HW)
    assert np.array_equal(decode_mask(rle), mask_HW)
    assert np.array_equal(decode_counts(rle.hw, rle.packed()), mask_HW)
    assert rle.area == mask_HW.sum()
    assert list(rle.box_xyxy) == mask_boxes(torch.from_numpy(mask_HW.copy())[None])[0].tolist()


@pytest.mark.parametrize("name", named_masks())
def test_named_masks_encode_as_released_and_come_back(name: str) -> None:
    """These are the masks on which other encoders fail (transformers#35664)."""
    mask_HW = named_masks()[name]
    rle = encode_mask(mask_HW)
    assert rle.hw == mask_HW.shape
    assert_described(rle, mask_HW)
    assert json.loads(json.dumps(rle.packed())) == rle.packed()


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.floats(0, 1), st.integers(0, 2**31))
def test_any_mask_encodes_as_released_and_comes_back(height: int, width: int, share: float, seed: int) -> None:
    """Every reader of the output decodes with pycocotools' rules."""
    mask_HW = np.random.default_rng(seed).random((height, width)) < share
    assert_described(encode_mask(mask_HW), mask_HW)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([2, 3, 4, 1, 2], ""),
        ([0, 3, 9], ""),
        ([2, 3, 0, 2, 5], "not all above 0"),
        ([2, 0, 3, 2, 5], "not all above 0"),
        ([2, 3, 7, 0], "not all above 0"),
        ([2, -1, 11], "not all above 0"),
        ([-2, 3, 11], "not all above 0"),
        ([2, 3, 6], "have 11 pixels, the image 12"),
        ([2, 3, 8], "have 13 pixels, the image 12"),
    ],
)
def test_runs_that_no_mask_has_are_told(runs: list[int], said: str) -> None:
    """Only the first may be empty: decoders of others stop at, or double, an empty run in the middle."""
    rle = Rle((3, 4), np.array(runs, dtype=np.int64))
    x0, y0, x1, y1 = rle.box_xyxy
    bbox_xywh = float(x0), float(y0), float(x1 - x0), float(y1 - y0)
    problem = rle_problem(rle.packed(), rle.hw, area=rle.area, bbox_xywh=bbox_xywh)
    assert problem == said if not said else said in problem


@pytest.mark.parametrize("name", named_masks())
def test_pasting_equals_padding_the_pixels(name: str) -> None:
    """Masks of a crop are kept in its small frame until they have survived."""
    mask_HW = named_masks()[name]
    height, width = mask_HW.shape
    for top, bottom, left, right in [(5, 3, 2, 11), (0, 0, 0, 4), (0, 0, 3, 0), (0, 2, 0, 0), (1, 0, 0, 0)]:
        frame_HW = np.pad(mask_HW, [(top, bottom), (left, right)])
        frame_hw = (height + top + bottom, width + left + right)
        assert_described(encode_mask(mask_HW).pasted(at_xy=(left, top), frame_hw=frame_hw), frame_HW)
    rle = encode_mask(mask_HW)
    assert rle.pasted(at_xy=(0, 0), frame_hw=(height, width)) is rle
