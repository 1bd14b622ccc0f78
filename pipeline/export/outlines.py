"""A mask as polygons of pixel positions: for each part one, its holes cut in; and all parts as one polygon.

Owns the bridges. A polygon cannot have a hole or a second part, so a line that is walked there and back joins them: it
has no area, and a reader that paints borders paints it one pixel wide. The borders are OpenCV's, 8-connected.
Legend: P points of x and y, H W pixels, w columns of the mask's box; in _with_holes H holes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import DamagedError
from pipeline.masks.rle import filling

Points_P2 = npt.NDArray[np.int32]

COARSE = 512
"""Points of a border that are looked at first when the nearest ones of two borders are looked for."""
PAIRS = 2**22
"""Of points, whose distances are in memory at once: two arrays of 32 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A connected part of a mask.

    point_P2  its border, closed, holes cut in; every point is a pixel of the mask
    pixels    how many it has
    """

    point_P2: Points_P2
    pixels: int


def parts_of(counts: str, hw: tuple[int, int], *, tolerance: float = 0.0) -> list[Part]:
    """The parts of a mask in packed run lengths, the largest first; none of a mask without pixels.

    tolerance  pixels by which a border may be off, for fewer points; 0 keeps every pixel

    raises  DamagedError if they cannot be read or do not fill the frame
    """
    inside_Hw, left = columns_of(counts, hw)
    found: Any = cv2.findContours(inside_Hw, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, 0))
    borders: list[Points_P2] = [border[:, 0] for border in found[0]]
    holes_of: dict[int, list[Points_P2]] = defaultdict(list)
    parents = [int(link[3]) for link in found[1][0]] if borders else []
    for border_P2, parent in zip(borders, parents, strict=True):
        holes_of[parent].append(border_P2)
    parts: list[Part] = []
    for number, border_P2 in enumerate(borders):
        if parents[number] >= 0:
            continue
        holes = holes_of[number]
        pixels = _pixels(border_P2, with_border=True) - sum(_pixels(hole, with_border=False) for hole in holes)
        border_P2 = _simpler(border_P2, tolerance)
        parts.append(Part(_with_holes(border_P2, [_simpler(hole_P2, tolerance) for hole_P2 in holes]), pixels))
    return sorted(parts, key=lambda part: -part.pixels)


def as_one(parts: Sequence[Part]) -> Points_P2:
    """All parts in one polygon, from the largest on, each joined where it is nearest to those before it. A part with no
    more pixels than its bridge is long is left out: the bridge would cost more than the part gives."""
    joined_P2 = parts[0].point_P2
    for part in parts[1:]:
        i, j, length = _nearest(joined_P2, part.point_P2)
        if part.pixels > length:
            joined_P2 = _bridged(joined_P2, part.point_P2, i, j)
    return joined_P2


def corners(point_P2: Points_P2) -> Points_P2:
    """The same closed polygon without the points at which it goes straight on; three points at least, as readers want
    it: a pixel or a line repeats its last one."""
    first_12 = point_P2[:1]
    step_P2 = np.diff(point_P2, axis=0, append=point_P2[:1])
    point_P2, step_P2 = point_P2[step_P2.any(axis=1)], step_P2[step_P2.any(axis=1)]
    before_P2 = np.roll(step_P2, 1, axis=0)
    turn_P = before_P2[:, 0] * step_P2[:, 1] - before_P2[:, 1] * step_P2[:, 0]
    bends_P = (turn_P != 0) | ((before_P2 * step_P2).sum(axis=1) < 0)
    point_P2 = point_P2[bends_P] if len(point_P2) else first_12
    return np.concatenate([point_P2, np.repeat(point_P2[-1:], max(0, 3 - len(point_P2)), axis=0)])


def _with_holes(border_P2: Points_P2, holes: Sequence[Points_P2]) -> Points_P2:
    """The border with its holes cut in, always the nearest of the rest: the bridge to one that is farther could cross
    it, and paint a line over it."""
    if not holes:
        return border_P2
    length_H = np.array([_nearest(border_P2, hole_P2)[2] for hole_P2 in holes])
    points_P2, first_H = np.concatenate(holes), np.cumsum([0, *map(len, holes[:-1])])
    waits_H = np.ones(len(holes), np.bool_)
    while waits_H.any():
        place = int(np.where(waits_H, length_H, np.iinfo(length_H.dtype).max).argmin())
        waits_H[place] = False
        border_P2 = _bridged(border_P2, holes[place], *_nearest(border_P2, holes[place])[:2])
        if length_H[waits_H].any():
            length_H = np.minimum(length_H, np.minimum.reduceat(_lengths(holes[place], points_P2), first_H))
    return border_P2


def _lengths(a_P2: Points_P2, b_P2: Points_P2) -> npt.NDArray[np.int64]:
    """From each point of `b` to the nearest of `a`, as `_nearest` counts; of long borders to some points of `a`."""
    step = -(-len(a_P2) * len(b_P2) // PAIRS)
    apart_AB2 = np.abs(a_P2[::step, None] - b_P2[None])
    return np.maximum(apart_AB2.max(axis=2).min(axis=0).astype(np.int64) - 1, 0)


def _simpler(border_P2: Points_P2, tolerance: float) -> Points_P2:
    return (
        cv2.approxPolyDP(border_P2[:, None], tolerance, closed=True)[:, 0].astype(np.int32) if tolerance else border_P2
    )


def columns_of(counts: str, hw: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], int]:
    """(H, w) of 0 and 1, the columns that the mask is in, and the first of them.

    raises  as `parts_of`
    """
    try:
        rle = filling(counts, hw)
    except ValueError as error:
        raise DamagedError(f"a part is damaged: {error}; make verify tells more") from error
    height = hw[0]
    left, _, right, _ = rle.box_xyxy
    flat = np.zeros((right - left + 1) * height, np.uint8)
    end_M = np.cumsum(rle.run_M) - left * height
    for start, stop in zip(end_M[:-1:2].tolist(), end_M[1::2].tolist(), strict=True):
        flat[start:stop] = 1
    return np.ascontiguousarray(flat.reshape(-1, height).T), left


def _pixels(border_P2: Points_P2, *, with_border: bool) -> int:
    """Of a border and what it holds, or only of what is inside it. By Pick's theorem: area ± steps / 2 + 1."""
    area, half = cv2.contourArea(border_P2), len(border_P2) / 2 if len(border_P2) > 1 else 0
    return max(0, round(area + half + 1 if with_border else area - half + 1))


def _nearest(a_P2: Points_P2, b_P2: Points_P2) -> tuple[int, int, int]:
    """The places of two points near each other, and the pixels that a line between them paints besides them. Of long
    borders the nearest of COARSE points each, then the nearest around these."""
    step_a, step_b = (-(-len(each) // COARSE) for each in (a_P2, b_P2))
    i, j = _nearest_of(a_P2[::step_a], b_P2[::step_b])
    i, j = i * step_a, j * step_b
    low_a, low_b = max(0, i - step_a), max(0, j - step_b)
    di, dj = _nearest_of(a_P2[low_a : i + step_a + 1], b_P2[low_b : j + step_b + 1])
    i, j = low_a + di, low_b + dj
    return i, j, max(0, int(np.abs(a_P2[i] - b_P2[j]).max()) - 1)


def _nearest_of(a_P2: Points_P2, b_P2: Points_P2) -> tuple[int, int]:
    distance = ((a_P2[:, None].astype(np.int64) - b_P2[None]) ** 2).sum(axis=2)
    i, j = np.unravel_index(int(distance.argmin()), distance.shape)
    return int(i), int(j)


def _bridged(a_P2: Points_P2, b_P2: Points_P2, i: int, j: int) -> Points_P2:
    """Along `a` to i, over to `b` at j, once around it, and back."""
    return np.concatenate([a_P2[: i + 1], b_P2[j:], b_P2[: j + 1], a_P2[i:]])
