"""The outlines against the masks that they are traced from."""

from __future__ import annotations

import re
from itertools import accumulate

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import StorageError
from pipeline.look.drawing import shown_hw
from pipeline.records import Mask
from pipeline.report import outlines
from pipeline.report.outlines import AROUND, outlines_of
from tests.masks.oracle import encode_mask

Mask_HW = npt.NDArray[np.bool_]
PLENTY = 1_000_000


def as_mask(mask_HW: Mask_HW) -> Mask:
    ys, xs = np.nonzero(mask_HW)
    box = (xs.min(), ys.min(), xs.max() - xs.min(), ys.max() - ys.min()) if len(xs) else (0, 0, 0, 0)
    return Mask(
        counts=encode_mask(mask_HW).packed(),
        bbox_xywh=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        area=int(mask_HW.sum()),
        predicted_iou=0.9,
        stability_score=0.96,
        point_xy=(0.5, 0.5),
        crop_box_xywh=(0.0, 0.0, 1.0, 1.0),
        crop_layer=0,
        multimask_index=0,
    )


def filled(path: str, hw: tuple[int, int]) -> Mask_HW:
    """The path as a browser fills it: every other region, and a stroke along it."""
    canvas = np.zeros(hw, np.uint8)
    contours = [_points(each) for each in path.split("z") if each]
    cv2.fillPoly(canvas, contours, 1)
    cv2.polylines(canvas, contours, isClosed=True, color=1)
    return canvas.astype(np.bool_)


def _points(closed: str) -> npt.NDArray[np.int32]:
    assert re.fullmatch(r"M\d+ \d+(l-?\d+ -?\d+( -?\d+ -?\d+)*|h0)", closed)
    x, y, *steps = map(int, re.findall(r"-?\d+", closed.replace("h0", "")))
    xs, ys = accumulate([x, *steps[::2]]), accumulate([y, *steps[1::2]])
    return np.array(list(zip(xs, ys, strict=True)), np.int32)


def iou(a: Mask_HW, b: Mask_HW) -> float:
    return float((a & b).sum() / (a | b).sum())


def blob(hw: tuple[int, int], seed: int) -> Mask_HW:
    """Smooth noise above its mean: several pieces, with holes."""
    noise = np.random.default_rng(seed).random((9, 12)).astype(np.float32)
    smooth = cv2.resize(noise, hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth > smooth.mean(), np.bool_)


@pytest.mark.parametrize("hw", [(60, 80), (333, 417), (1500, 2000)])
def test_an_outline_filled_again_is_the_mask_with_its_holes(hw: tuple[int, int]) -> None:
    """At the size in which it is shown; the finest outline is off by less than a pixel."""
    mask_HW = blob(hw, 1)
    [outline] = outlines_of([as_mask(mask_HW)], hw, most=PLENTY).outlines
    height, width = shown_hw(hw)
    ys, xs = ((2 * np.arange(shown) + 1) * size // (2 * shown) for size, shown in zip(hw, (height, width), strict=True))
    assert iou(filled(outline.path, (height, width)), mask_HW[ys][:, xs]) > 0.93
    assert outline.path.count("z") > 1


def test_single_pixels_and_full_images_and_a_ring_have_outlines() -> None:
    """A mask of one pixel is a dot; a full one is the image's border."""
    hw = 20, 30
    dot_HW, full_HW, ring_HW = np.zeros(hw, np.bool_), np.ones(hw, np.bool_), np.zeros(hw, np.bool_)
    dot_HW[7, 9] = True
    ring_HW[4:16, 4:16] = True
    ring_HW[8:12, 8:12] = False
    found = outlines_of([as_mask(dot_HW), as_mask(full_HW), as_mask(ring_HW)], hw, most=PLENTY).outlines
    assert [each.number for each in found] == [1, 2, 0]
    assert found[2].path == "M9 7h0z"
    assert filled(found[0].path, hw).all()
    assert found[1].path.count("z") == 2


def test_a_mask_that_is_too_small_to_be_shown_has_its_box() -> None:
    """It is counted, so it must be there to be found."""
    hw = 2000, 3000
    speck_HW = np.zeros(hw, np.bool_)
    speck_HW[1501, 2400] = True
    [outline] = outlines_of([as_mask(speck_HW)], hw, most=PLENTY).outlines
    assert _points(outline.path.removesuffix("z"))[0].tolist() == [720, 450]


def test_outlines_get_coarser_and_then_fewer_to_fit() -> None:
    """The largest masks stay. What is left out is counted."""
    hw = 400, 400
    masks = [as_mask(blob(hw, seed)) for seed in range(8)] + [as_mask(np.eye(400, dtype=np.bool_))]
    fine = outlines_of(masks, hw, most=PLENTY)
    used = sum(len(each.path) + AROUND for each in fine.outlines)
    assert outlines_of(masks, hw, most=used) == fine
    coarse = outlines_of(masks, hw, most=used - 1)
    assert len(coarse.outlines) == 9
    assert sum(len(each.path) for each in coarse.outlines) < used - 9 * AROUND
    few = outlines_of(masks, hw, most=used // 8)
    assert 0 < len(few.outlines) < 9
    assert len(few.outlines) + few.left_out == 9
    assert sum(len(each.path) + AROUND for each in few.outlines) <= used // 8
    assert [each.number for each in few.outlines] == [each.number for each in fine.outlines][: len(few.outlines)]


def test_depth_is_the_mean_number_of_masks_over_a_covered_pixel() -> None:
    """Two masks side by side have 1, one on another more."""
    hw = 10, 10
    left_HW, all_HW, none_HW = np.zeros(hw, np.bool_), np.ones(hw, np.bool_), np.zeros(hw, np.bool_)
    left_HW[:, :5] = True
    assert outlines_of([as_mask(left_HW), as_mask(~left_HW)], hw, most=PLENTY).depth == 1.0
    assert outlines_of([as_mask(left_HW), as_mask(all_HW)], hw, most=PLENTY).depth == 1.5
    assert outlines_of([as_mask(none_HW)], hw, most=PLENTY).depth == 0.0
    assert outlines_of([], hw, most=PLENTY) == outlines.Outlines((), 0, 0.0)


def test_run_lengths_that_do_not_fill_the_image_are_refused() -> None:
    """A page must not show half a mask as if it were one."""
    with pytest.raises(StorageError, match="do not fill its image"):
        outlines_of([as_mask(np.ones((4, 6), np.bool_))], (4, 7), most=PLENTY)
