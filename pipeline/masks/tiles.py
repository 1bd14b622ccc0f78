"""Values of pixels from low-resolution logits: bounds for whole tiles, and the exact values where bounds do not decide.

A pixel is a convex combination of the cells it depends on, so a tile whose cells all lie on one side of a cut is
decided at once. Everything here works on transposed logits, for which a column of pixels is contiguous.
Legend: w h low-resolution cells (transposed), X Y pixels of the crop, T U tiles along x and y, R rows of the square,
K columns of a tile, J cells and S columns of the square that it depends on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.masks.arrays import Floats
from pipeline.masks.compiled import compiled, fma
from pipeline.masks.upscaling import Taps, Upscaling

ROUNDING = 2e-6
"""Share of a tile's largest logit by which rounding may carry a pixel out of the range of its cells. Four linear
interpolations of 2.5 roundings of 2^-24 make 6e-7."""


class Workspace(NamedTuple):
    """Room for the values of one column of tiles, reused from tile to tile."""

    cells_J2R: Floats
    square_SR: Floats
    square_S2Y: Floats
    pixel_KY: Floats


@compiled
def make_workspace(upscaling: Upscaling) -> Workspace:
    """Large enough for any tile."""
    x, y = upscaling
    most_j, most_s, most_k = 0, 0, 0
    for tile in range(len(x.low_T)):
        start, last = x.start_T1[tile], x.start_T1[tile + 1] - 1
        most_j = max(most_j, x.high_T[tile] - x.low_T[tile] + 1)
        most_s = max(most_s, x.crop.index1[last] - x.crop.index0[start] + 1)
        most_k = max(most_k, last - start + 1)
    rows, height = len(y.square.index0), len(y.crop.index0)
    return Workspace(
        np.empty((most_j, 2, rows), np.float32),
        np.empty((most_s, rows), np.float32),
        np.empty((most_s, 2, height), np.float32),
        np.empty((most_k, height), np.float32),
    )


@compiled
def tile_bounds(logits_wh: Floats, upscaling: Upscaling) -> tuple[Floats, Floats]:
    """(T, U) float32 each: no pixel of the tile is below the first, none above the second, rounding included."""
    x, y = upscaling
    width = x.high_T[-1] + 1
    tiles_x, tiles_y = len(x.low_T), len(y.low_T)
    low_wU = np.empty((width, tiles_y), np.float32)
    high_wU = np.empty((width, tiles_y), np.float32)
    for column in range(width):
        for tile in range(tiles_y):
            low = high = logits_wh[column, y.low_T[tile]]
            for row in range(y.low_T[tile] + 1, y.high_T[tile] + 1):
                low = min(low, logits_wh[column, row])
                high = max(high, logits_wh[column, row])
            low_wU[column, tile] = low
            high_wU[column, tile] = high
    low_TU = np.empty((tiles_x, tiles_y), np.float32)
    high_TU = np.empty((tiles_x, tiles_y), np.float32)
    for tile in range(tiles_x):
        for u in range(tiles_y):
            low, high = low_wU[x.low_T[tile], u], high_wU[x.low_T[tile], u]
            for column in range(x.low_T[tile] + 1, x.high_T[tile] + 1):
                low = min(low, low_wU[column, u])
                high = max(high, high_wU[column, u])
            margin = np.float32(ROUNDING) * max(abs(low), abs(high))
            low_TU[tile, u] = low - margin
            high_TU[tile, u] = high + margin
    return low_TU, high_TU


@compiled
def evaluate(logits_wh: Floats, upscaling: Upscaling, tile: int, top: Any, bottom: Any, space: Workspace) -> None:
    """Fill `pixel_KY[:, top:bottom]` of the workspace with the values of the tile column's pixels in those rows."""
    x, y = upscaling
    cells_J2R, square_SR, square_S2Y, pixel_KY = space
    start, stop = x.start_T1[tile], x.start_T1[tile + 1]
    first_j, first_s = x.low_T[tile], x.crop.index0[start]
    rows, square_rows = (top, bottom), (np.int64(y.crop.index0[top]), np.int64(y.crop.index1[bottom - 1] + 1))
    for j in range(first_j, x.high_T[tile] + 1):
        _spread(logits_wh[j], y.square, square_rows, cells_J2R[j - first_j])
    for s in range(first_s, x.crop.index1[stop - 1] + 1):
        left, right = x.square.index0[s] - first_j, x.square.index1[s] - first_j
        weights = x.square.weight0[s], x.square.weight1[s]
        _mix(cells_J2R[left], cells_J2R[right], weights, y.square, square_rows, square_SR[s - first_s])
        _spread(square_SR[s - first_s], y.crop, rows, square_S2Y[s - first_s])
    for k in range(start, stop):
        left, right = x.crop.index0[k] - first_s, x.crop.index1[k] - first_s
        weights = x.crop.weight0[k], x.crop.weight1[k]
        _mix(square_S2Y[left], square_S2Y[right], weights, y.crop, rows, pixel_KY[k - start])


@compiled
def _spread(values: Floats, taps: Taps, rows: Any, out_2Y: Floats) -> None:
    """The two values that each output line is made of, side by side with its weights."""
    index0, index1 = taps.index0, taps.index1
    out0, out1 = out_2Y[0], out_2Y[1]
    for row in range(rows[0], rows[1]):
        out0[row] = values[index0[row]]
        out1[row] = values[index1[row]]


@compiled
def _mix(left_2Y: Floats, right_2Y: Floats, weights: Any, taps: Taps, rows: Any, out_Y: Floats) -> None:
    """One bilinear step for one output column, `weights` those of the columns left and right of it.

    The order of the operations is that of torch's CPU kernel for three channels, to the last bit.
    """
    left0, left1, right0, right1 = left_2Y[0], left_2Y[1], right_2Y[0], right_2Y[1]
    upper, lower = taps.weight0, taps.weight1
    left, right = weights
    for row in range(rows[0], rows[1]):
        value = fma(left0[row], upper[row] * left, right0[row] * (upper[row] * right))
        value = fma(left1[row], lower[row] * left, value)
        out_Y[row] = fma(right1[row], lower[row] * right, value)


@compiled
def next_stretch(low_U: Floats, high_U: Floats, cuts: Any, first: Any) -> tuple[int, int]:
    """[first, stop) of the next neighbouring tiles, from `first` on, that some cut runs through; empty at the end."""
    while first < len(low_U) and not _any_runs_through(low_U[first], high_U[first], cuts):
        first += 1
    stop = first
    while stop < len(low_U) and _any_runs_through(low_U[stop], high_U[stop], cuts):
        stop += 1
    return first, stop


@compiled
def _any_runs_through(low: Any, high: Any, cuts: Any) -> bool:
    return runs_through(low, high, cuts[0]) or runs_through(low, high, cuts[1]) or runs_through(low, high, cuts[2])


@compiled
def runs_through(low: Any, high: Any, cut: Any) -> bool:
    """Whether pixels may lie on both sides: neither all above the cut, nor all at it or below. True for NaN bounds."""
    return not (low > cut or high <= cut)
