"""Small flaws of a mask: holes to fill, islands to remove. Components are 8-connected, for both.

Owns one mask at a time, as run lengths; which masks are duplicates afterwards is not decided here.
Legend: M runs, G segments (parts of runs within one column, of mask and background alike, in order).
Source: arXiv:2304.02643 appendix B; order and ties as in segment_anything 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.masks.arrays import Flags, Integers
from pipeline.masks.compiled import compiled
from pipeline.masks.rle import Rle, Runs, lengths


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A mask without small flaws, and what was found in it.

    changed       it had some; true too for a mask of small components only, of which the largest stays
    largest_area  pixels of its largest component; 0 for an empty mask
    """

    rle: Rle
    changed: bool
    largest_area: int


def clean_mask(rle: Rle, *, below_area: int) -> Cleaned:
    """Fill holes, then remove islands of fewer than `below_area` pixels; the very same mask if there are none.

    A small component of the background is a hole, at the frame's border too. If all components of the mask are small,
    the largest stays, of equally large ones the one that cv2.connectedComponents names first.
    """
    run_M, changed, largest_area = _clean(rle.run_M, rle.hw[0], rle.hw[1], below_area)
    return Cleaned(Rle(rle.hw, run_M) if changed else rle, bool(changed), int(largest_area))


@compiled
def _clean(run_M: Runs, height: int, width: int, below_area: int) -> tuple[Runs, bool, int]:
    start_G1, inside_G = _segments(run_M, height, width)
    root_G = _components(start_G1, inside_G, height, np.bool_(0))
    area_G = _areas(start_G1, root_G)
    changed = False
    for g in range(len(root_G)):
        if root_G[g] >= 0 and area_G[root_G[g]] < below_area:
            inside_G[g] = True
            changed = True
    if changed:
        run_M = _join(start_G1, inside_G)
        start_G1, inside_G = _segments(run_M, height, width)
    root_G = _components(start_G1, inside_G, height, np.bool_(1))
    area_G = _areas(start_G1, root_G)
    largest_area = _largest(area_G)
    stays = _first_of_largest(start_G1, root_G, area_G, height) if largest_area < below_area else -1
    islands = False
    for g in range(len(root_G)):
        if root_G[g] >= 0 and area_G[root_G[g]] < below_area:
            inside_G[g] = root_G[g] == stays
            islands = True
    if islands:
        run_M = _join(start_G1, inside_G)
    return run_M, changed or islands, largest_area


@compiled
def _segments(run_M: Runs, height: int, width: int) -> tuple[Integers, Flags]:
    """Runs cut at the ends of columns: first position of each (and the end of the last), and whether it is mask."""
    start_G1 = np.empty(len(run_M) + width + 1, np.int64)
    inside_G = np.empty(len(run_M) + width, np.bool_)
    count, start = 0, 0
    for m in range(len(run_M)):
        stop = start + run_M[m]
        while start < stop:
            start_G1[count] = start
            inside_G[count] = m % 2 == 1
            count += 1
            start = min(stop, (start // height + 1) * height)
    start_G1[count] = start
    return start_G1[: count + 1], inside_G[:count]


@compiled
def _join(start_G1: Integers, inside_G: Flags) -> Runs:
    """Segments back to runs."""
    ends = np.zeros(len(inside_G) + 2, np.int64)
    count = 1
    for g in range(len(inside_G)):
        if inside_G[g] == (count % 2 == 1):
            ends[count] = start_G1[g]
            count += 1
    ends[count] = start_G1[len(inside_G)]
    return lengths(ends[: count + 1])


@compiled
def _components(start_G1: Integers, inside_G: Flags, height: int, value: Any) -> Integers:
    """For each segment that is `value` the first segment of its component; -1 for the others."""
    root_G = np.full(len(inside_G), -1, np.int64)
    before = 0  # walks one column behind, so each pair of neighbouring segments is met once
    for g in range(len(inside_G)):
        if inside_G[g] != value:
            continue
        root_G[g] = g
        # In the column before, the rows from one above this segment to one below touch it.
        low = max(start_G1[g] - height - 1, (start_G1[g] // height - 1) * height)
        high = min(start_G1[g + 1] - height, (start_G1[g] // height) * height - 1)
        while start_G1[before + 1] <= low:
            before += 1
        other = before
        while other < g and start_G1[other] <= high:
            if inside_G[other] == value:
                _unite(root_G, other, g)
            other += 1
    for g in range(len(root_G)):
        if root_G[g] >= 0:
            root_G[g] = root_G[root_G[g]]  # its root comes before it and is final
    return root_G


@compiled
def _unite(root_G: Integers, a: int, b: int) -> None:
    """Of two components the one whose first segment comes later joins the other."""
    while root_G[a] != a:
        root_G[a] = root_G[root_G[a]]
        a = root_G[a]
    while root_G[b] != b:
        root_G[b] = root_G[root_G[b]]
        b = root_G[b]
    root_G[max(a, b)] = min(a, b)


@compiled
def _areas(start_G1: Integers, root_G: Integers) -> Integers:
    """Pixels of each component, at its first segment; 0 elsewhere."""
    area_G = np.zeros(len(root_G), np.int64)
    for g in range(len(root_G)):
        if root_G[g] >= 0:
            area_G[root_G[g]] += start_G1[g + 1] - start_G1[g]
    return area_G


@compiled
def _largest(area_G: Integers) -> Any:
    largest = np.int64(0)
    for area in area_G:
        largest = max(largest, area)
    return largest


@compiled
def _first_of_largest(start_G1: Integers, root_G: Integers, area_G: Integers, height: int) -> int:
    """OpenCV names components in the order in which it meets their blocks of 2 x 2 pixels, row of blocks by row.

    Two components never share a block. -1 if there is no component.
    """
    largest = _largest(area_G)
    best, best_row, best_column = -1, 0, 0
    for g in range(len(root_G)):
        if root_G[g] >= 0 and area_G[root_G[g]] == largest:
            column, row = divmod(start_G1[g], height)
            if best < 0 or (row // 2, column // 2) < (best_row, best_column):
                best, best_row, best_column = root_G[g], row // 2, column // 2
    return best
