"""The convex hull of a mask, from its run lengths.

Owns the definition: the hull of the centres of the mask's pixels, and as its area the number of pixels whose centre
lies in it or on its edge. So a digital disc or a line of any slope fills its hull, whatever its size, and an area never
exceeds that of its hull. The polygon is the one that OpenCV's `convexHull` gives of the pixels' coordinates.
Legend: N masks, M runs, X columns of a mask, P corners.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.masks.arrays import Integers
from pipeline.masks.compiled import compiled
from pipeline.masks.overlap import readable_runs
from pipeline.masks.rle import Bytes, Runs


@compiled
def hull_areas(packed: Bytes, start_N: Integers, stop_N: Integers, hw_N2: Integers) -> Integers:
    """(N,) pixels in the hull of each mask; 0 if it has none.

    packed   the characters of packed masks, of which mask n has those from start_N[n] to stop_N[n]; not writable
    hw_N2    the frame of each

    raises   ValueError if one cannot be read or does not fill its frame
    """
    area_N = np.zeros(len(start_N), np.int64)
    for n in range(len(start_N)):
        run_M = readable_runs(packed[start_N[n] : stop_N[n]], hw_N2[n, 0] * hw_N2[n, 1])
        if len(run_M) > 1:
            area_N[n] = _hull_area(run_M, hw_N2[n, 0])
    return area_N


@compiled
def _hull_area(run_M: Runs, height: int) -> Any:
    """By Pick's theorem: of a polygon between whole numbers, the points in it follow from its area and its edge."""
    x_X, top_X, bottom_X = _ends(run_M, height)
    upper, lower = _chain(x_X, top_X, 1), _chain(x_X, bottom_X, -1)[::-1]
    x_P = np.concatenate((x_X[upper], x_X[lower]))
    y_P = np.concatenate((top_X[upper], bottom_X[lower]))
    twice_area = edge = np.int64(0)
    for p in range(len(x_P)):
        twice_area += x_P[p - 1] * y_P[p] - x_P[p] * y_P[p - 1]
        edge += np.gcd(x_P[p] - x_P[p - 1], y_P[p] - y_P[p - 1])
    return (abs(twice_area) + edge) // 2 + 1


@compiled
def _ends(run_M: Runs, height: int) -> tuple[Integers, Integers, Integers]:
    """The columns that have pixels of the mask, and the first and the last row of each."""
    total = run_M.sum()
    first = run_M[0] // height
    width = (total - 1) // height + 1 - first
    top_X = np.full(width, height, np.int64)
    bottom_X = np.full(width, -1, np.int64)
    start = np.int64(0)
    for m in range(len(run_M)):
        stop = start + run_M[m]
        if m % 2 == 1:
            left, right = start // height, (stop - 1) // height
            for column in range(left, right + 1):
                x = column - first
                top_X[x] = min(top_X[x], start - column * height if column == left else 0)
                bottom_X[x] = max(bottom_X[x], stop - 1 - column * height if column == right else height - 1)
        start = stop
    x_X = np.flatnonzero(bottom_X >= 0)
    return x_X, top_X[x_X], bottom_X[x_X]


@compiled
def _chain(x_X: Integers, row_X: Integers, side: int) -> Integers:
    """Which points are corners of the hull, from left to right, on the side of small rows (1) or of large ones (-1).
    Andrew's monotone chain (Information Processing Letters 9, 1979)."""
    corner = np.empty(len(x_X), np.int64)
    count = 0
    for x in range(len(x_X)):
        while count > 1:
            a, b = corner[count - 2], corner[count - 1]
            turn = (x_X[b] - x_X[a]) * (row_X[x] - row_X[a]) - (row_X[b] - row_X[a]) * (x_X[x] - x_X[a])
            if side * turn > 0:
                break
            count -= 1
        corner[count] = x
        count += 1
    return corner[:count]
