"""What is counted of masks by their runs, against pixels, pycocotools and OpenCV."""

from __future__ import annotations

from math import gcd
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from pipeline.masks.hull import hull_areas
from pipeline.masks.overlap import Insides, insides_of, near_duplicates, pixels_by_depth
from tests.masks.test_rle import named_masks

Mask_HW = npt.NDArray[np.bool_]
DEEPEST = 3


def encoded(masks: list[Mask_HW]) -> Any:
    return [coco.encode(np.asfortranarray(mask_HW.astype(np.uint8))) for mask_HW in masks]


def packed_of(masks: list[Mask_HW]) -> tuple[Any, Any]:
    """The characters of all of them as pycocotools writes them, and where each begins."""
    counts: list[bytes] = [each["counts"] for each in encoded(masks)]
    return np.frombuffer(b"".join(counts), np.uint8), np.cumsum([0, *map(len, counts)], dtype=np.int64)


def insides(masks: list[Mask_HW]) -> Insides:
    return insides_of(*packed_of(masks), masks[0].shape)  # type: ignore[arg-type]


def hulls(masks: list[Mask_HW]) -> list[int]:
    packed, start_N1 = packed_of(masks)
    hw_N2 = np.array([mask_HW.shape for mask_HW in masks], np.int64)
    return hull_areas(packed, start_N1[:-1], start_N1[1:], hw_N2).tolist()


def opencv_hull(mask_HW: Mask_HW) -> int:
    """Pixels in OpenCV's hull of the coordinates: those that its own test puts inside or on the edge."""
    points = cv2.findNonZero(mask_HW.astype(np.uint8))
    if points is None:
        return 0
    polygon = cv2.convexHull(points)
    rows, columns = np.indices(mask_HW.shape)
    return sum(
        cv2.pointPolygonTest(polygon, (float(x), float(y)), False) >= 0  # noqa: FBT003 - OpenCV's own argument
        for x, y in zip(columns.ravel(), rows.ravel(), strict=True)
    )


def opencv_hull_of_large(mask_HW: Mask_HW) -> int:
    """The same by OpenCV's area of the polygon and the whole points on its edge."""
    points = cv2.findNonZero(mask_HW.astype(np.uint8))
    polygon = cv2.convexHull(points)[:, 0].astype(np.int64)
    edge = sum(gcd(*map(int, side)) for side in polygon - np.roll(polygon, 1, axis=0))
    return int((2 * cv2.contourArea(polygon.astype(np.int32)) + edge) // 2 + 1)


def ellipse(hw: tuple[int, int], centre_xy: tuple[int, int], axes: tuple[int, int], angle: float) -> Mask_HW:
    canvas = np.zeros(hw, np.uint8)
    cv2.ellipse(canvas, centre_xy, axes, angle, 0, 360, 1, -1)
    return canvas.astype(np.bool_)


@pytest.mark.parametrize("name", [name for name in named_masks() if name != "tall"])
def test_the_hull_of_a_named_mask_is_opencv_s(name: str) -> None:
    """Lines, single pixels, first and last columns, and the mask without a pixel."""
    mask_HW = named_masks()[name]
    assert hulls([mask_HW]) == [opencv_hull(mask_HW)]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 25), st.integers(1, 25), st.floats(0, 1), st.integers(0, 2**31))
def test_the_hull_of_any_mask_is_opencv_s(height: int, width: int, share: float, seed: int) -> None:
    """Scattered pixels leave columns empty and make corners of every slope."""
    mask_HW = np.random.default_rng(seed).random((height, width)) < share
    assert hulls([mask_HW]) == [opencv_hull(mask_HW)]


def test_hulls_of_large_masks_are_opencv_s_and_a_convex_shape_fills_its_own() -> None:
    """A definition by corners of pixels would call every small disc concave."""
    generator = np.random.default_rng(1)
    hw = 700, 900
    rings, discs = [], []
    for _ in range(8):
        centre = int(generator.integers(200, 700)), int(generator.integers(150, 550))
        axes = int(generator.integers(20, 140)), int(generator.integers(20, 140))
        outer = ellipse(hw, centre, axes, float(generator.uniform(0, 180)))
        rings.append(outer & ~ellipse(hw, (centre[0] + 9, centre[1]), (axes[0] // 2, axes[1] // 2), 30.0))
    for radius in (1, 2, 5, 17, 90):
        y, x = np.indices(hw)
        discs.append((x - 400) ** 2 + (y - 300) ** 2 <= radius**2)
    discs.append(np.pad(np.ones((40, 31), np.bool_), ((3, 657), (800, 69))))
    assert hulls(rings) == [opencv_hull_of_large(mask_HW) for mask_HW in rings]
    assert hulls(discs) == [int(mask_HW.sum()) for mask_HW in discs]


def some_masks(seed: int, count: int = 12) -> list[Mask_HW]:
    """Rectangles on top of one another; some are near-duplicates, one is empty, one is full."""
    generator = np.random.default_rng(seed)
    hw = int(generator.integers(1, 40)), int(generator.integers(1, 40))
    masks = [np.zeros(hw, np.bool_), np.ones(hw, np.bool_)]
    for _ in range(count):
        mask_HW = np.zeros(hw, np.bool_)
        y, x = generator.integers(0, hw[0]), generator.integers(0, hw[1])
        mask_HW[y : y + generator.integers(1, 20), x : x + generator.integers(1, 20)] = True
        near = mask_HW.copy()
        near.ravel()[generator.integers(0, near.size, 4)] ^= True
        masks += [mask_HW, near]
    return masks


@pytest.mark.parametrize("seed", range(12))
def test_depths_and_near_duplicates_are_those_of_the_pixels(seed: int) -> None:
    """Against sums of pixels, and pycocotools' IoU of all pairs."""
    masks = some_masks(seed)
    depth_HW = np.sum(masks, axis=0)
    expected = np.bincount(np.minimum(depth_HW, DEEPEST).ravel(), minlength=DEEPEST + 1)
    found = insides(masks)
    assert pixels_by_depth(found, masks[0].shape, deepest=DEEPEST).tolist() == expected.tolist()  # type: ignore[arg-type]
    rles = encoded(masks)
    iou_NN = np.asarray(coco.iou(rles, rles, [0] * len(rles)))
    for bound in (0.5, 0.8, 0.9):
        assert near_duplicates(found, bound) == (np.triu(iou_NN, 1) > bound).sum()


def test_a_frame_without_masks_is_uncovered() -> None:
    """An image in which nothing was found."""
    found = insides_of(np.frombuffer(b"", np.uint8), np.zeros(1, np.int64), (7, 9))
    assert pixels_by_depth(found, (7, 9), deepest=2).tolist() == [63, 0, 0]
    assert near_duplicates(found, 0.9) == 0


@pytest.mark.parametrize(
    ("counts", "said"), [(b"~~", "no packed numbers"), (b"52", "do not fill"), (b"5N4", "not all")]
)
def test_runs_that_are_none_are_refused(counts: bytes, said: str) -> None:
    """Numbers of a damaged mask would be shown as if they were true."""
    packed, ends = np.frombuffer(counts, np.uint8), np.array([0, len(counts)])
    with pytest.raises(ValueError, match=said):
        insides_of(packed, ends, (3, 3))
    with pytest.raises(ValueError, match=said):
        hull_areas(packed, ends[:1], ends[1:], np.array([[3, 3]]))
