"""Masks as the outlines of an SVG, traced at the size in which they are shown.

Owns how exact an outline is for the bytes that it may take.
Legend: h w pixels shown, P points of a contour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.look.drawing import largest_first, shown_hw, shown_pixels
from pipeline.records import Mask

TOLERANCES = (0.7, 1.5, 3.0)
"""Pixels that an outline may be off by, the finest first. The first one turns the stairs of a slope into a line."""
AROUND = 160
"""Characters that a page needs for a mask besides its outline, at most."""

Contour = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Outline:
    """number  of the mask, in the order of its image
    path    for the attribute `d` of an SVG path, in pixels shown; a whole number is the middle of a pixel
    """

    number: int
    path: str


@dataclass(frozen=True, slots=True)
class Outlines:
    """outlines  the largest mask first
    left_out  masks, the smallest ones, for which there was no room
    depth     masks over a covered pixel shown, on average; 0 without covered pixels
    """

    outlines: tuple[Outline, ...]
    left_out: int
    depth: float


def outlines_of(masks: Sequence[Mask], hw: tuple[int, int], *, most: int) -> Outlines:
    """As fine as `most` characters allow, and if need be fewer masks.

    hw      the size of the image
    raises  StorageError if the run lengths of a mask cannot be read or do not fill the image
    """
    order = largest_first(masks)
    over_hw = np.zeros(shown_hw(hw), np.int32)
    traced = [_traced(masks[number], hw, over_hw) for number in order]
    covered = int(np.count_nonzero(over_hw))
    depth = float(over_hw.sum()) / covered if covered else 0.0
    paths: list[str] = []
    for tolerance in TOLERANCES:
        paths = [_path(contours, tolerance) for contours in traced]
        if sum(map(len, paths)) + AROUND * len(paths) <= most:
            break
    fitting = _fitting(paths, most)
    outlines = (Outline(number, path) for number, path in zip(order, paths[:fitting], strict=False))
    return Outlines(tuple(outlines), len(paths) - fitting, depth)


def _fitting(paths: Sequence[str], most: int) -> int:
    """How many of the paths have room, from the first on."""
    used = 0
    for number, path in enumerate(paths):
        used += len(path) + AROUND
        if used > most:
            return number
    return len(paths)


def _traced(mask: Mask, hw: tuple[int, int], over_hw: npt.NDArray[np.int32]) -> list[Contour]:
    """(P, 2) of x and y for each border, holes among them; and the mask is counted in `over_hw`.

    A mask without a pixel that is shown has its box.
    """
    inside_hw, left = shown_pixels(mask, hw)
    over_hw[:, left : left + inside_hw.shape[1]] += inside_hw
    if not inside_hw.any():
        return [_box(mask, hw)]
    found: Any = cv2.findContours(inside_hw.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, 0))
    return [cast("Contour", contour)[:, 0] for contour in found[0]]


def _box(mask: Mask, hw: tuple[int, int]) -> Contour:
    """Inside the picture, whatever a damaged part says."""
    height, width = shown_hw(hw)
    x, y, w, h = np.nan_to_num(np.array(mask.bbox_xywh)).tolist()
    xs = np.clip(np.array([x, x + w]), 0, hw[1] - 1) * width // hw[1]
    ys = np.clip(np.array([y, y + h]), 0, hw[0] - 1) * height // hw[0]
    return np.array([(xs[0], ys[0]), (xs[1], ys[0]), (xs[1], ys[1]), (xs[0], ys[1])], np.int32)


def _path(contours: Sequence[Contour], tolerance: float) -> str:
    """Each contour closed: its first point, then steps."""
    return "".join(_closed(cv2.approxPolyDP(contour, tolerance, closed=True)[:, 0]) for contour in contours)


def _closed(point_P2: npt.NDArray[Any]) -> str:
    steps = np.diff(point_P2, axis=0).tolist()
    first = f"M{point_P2[0, 0]} {point_P2[0, 1]}"
    return first + ("l" + " ".join(f"{x} {y}" for x, y in steps) if steps else "h0") + "z"
