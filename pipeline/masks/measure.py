"""What decides about a candidate before its mask is made: pixels above two cuts, and the box of the mask.

Owns counting alone; scores and thresholds are in `filters`.
Legend: N candidates, w h low-resolution cells (transposed), T U tiles along x and y, Y rows of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.masks.arrays import Floats, Integers
from pipeline.masks.compiled import compiled
from pipeline.masks.tiles import Workspace, evaluate, make_workspace, next_stretch, tile_bounds
from pipeline.masks.upscaling import Upscaling

TIGHT, LOOSE, LEFT, TOP, RIGHT, BOTTOM = range(6)
"""The columns of a tally. The first two are counts, the others the box so far."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What is known of N candidates in their crop's frame.

    tight_N      int64, pixels above +offset
    loose_N      int64, pixels above -offset
    box_xyxy_N4  int64, first and last column and row with a pixel above 0; zeros if there is none
    """

    tight_N: Integers
    loose_N: Integers
    box_xyxy_N4: Integers


@dataclass(frozen=True, slots=True)
class Live:
    """What is known of the live masks of a batch, in the order of their slots.

    slot_N           point x outputs + output
    predicted_iou_N  never clipped
    """

    slot_N: Integers
    predicted_iou_N: Floats
    measures: Measures


def measure_masks(logits_Nwh: Floats, upscaling: Upscaling, *, offset: float, least_score: float) -> Measures:
    """Counts and boxes at full size, without evaluating the pixels that their neighbourhood decides.

    logits_Nwh   contiguous, each mask transposed, at least `upscaling.used_hw`
    least_score  where tight / loose is certain to be lower, counting may stop: the counts are then bounds whose ratio
                 is lower too, and the box is that of the pixels seen so far
    """
    tally_N6 = _measure(logits_Nwh, upscaling, np.float32(offset), float(least_score))
    return Measures(tally_N6[:, TIGHT], tally_N6[:, LOOSE], tally_N6[:, LEFT:])


@compiled
def _measure(logits_Nwh: Floats, upscaling: Upscaling, offset: Any, least_score: float) -> Integers:
    tally_N6 = np.zeros((len(logits_Nwh), 6), np.int64)
    space = make_workspace(upscaling)
    for i in range(len(logits_Nwh)):
        tally_6 = tally_N6[i]
        tally_6[LEFT], tally_6[TOP] = len(upscaling.x.crop.index0), len(upscaling.y.crop.index0)  # an empty box
        _measure_one(logits_Nwh[i], upscaling, offset, least_score, space, tally_6)
        if tally_6[LEFT] > tally_6[RIGHT]:
            tally_6[LEFT] = tally_6[TOP] = 0
    return tally_N6


@compiled
def _measure_one(
    logits_wh: Floats, upscaling: Upscaling, offset: Any, least_score: float, space: Workspace, tally_6: Integers
) -> None:
    x, y = upscaling
    low_TU, high_TU = tile_bounds(logits_wh, upscaling)
    cuts = (offset, np.float32(0), -offset)
    _tally_tiles(low_TU, high_TU, upscaling, cuts, tally_6)
    for tile in range(len(low_TU)):
        # Undecided tiles count as tight and not as loose until they are evaluated: the ratio can only fall.
        if tally_6[TIGHT] < least_score * tally_6[LOOSE]:
            return
        left, right = x.start_T1[tile], x.start_T1[tile + 1]
        first, stop = next_stretch(low_TU[tile], high_TU[tile], cuts, np.int64(0))
        while first < stop:
            for u in range(first, stop):
                pixels = (right - left) * (y.start_T1[u + 1] - y.start_T1[u])
                tally_6[TIGHT] -= pixels * (high_TU[tile, u] > offset)
                tally_6[LOOSE] -= pixels * (low_TU[tile, u] > -offset)
            rows = y.start_T1[first], y.start_T1[stop]
            evaluate(logits_wh, upscaling, tile, rows[0], rows[1], space)
            for column in range(left, right):
                _tally_pixels(space.pixel_KY[column - left], column, rows, cuts, tally_6)
            first, stop = next_stretch(low_TU[tile], high_TU[tile], cuts, stop)


@compiled
def _tally_tiles(low_TU: Floats, high_TU: Floats, upscaling: Upscaling, cuts: Any, tally_6: Integers) -> None:
    """Most pixels that can be tight, least that can be loose, the box of the tiles that are all mask."""
    x, y = upscaling
    for tile in range(len(low_TU)):
        left, right = x.start_T1[tile], x.start_T1[tile + 1]
        for u in range(low_TU.shape[1]):
            top, bottom = y.start_T1[u], y.start_T1[u + 1]
            pixels = (right - left) * (bottom - top)
            tally_6[TIGHT] += pixels * (high_TU[tile, u] > cuts[0])
            tally_6[LOOSE] += pixels * (low_TU[tile, u] > cuts[2])
            if low_TU[tile, u] > cuts[1]:
                _extend(tally_6, left, top, right - 1, bottom - 1)


@compiled
def _tally_pixels(pixel_Y: Floats, column: int, rows: Any, cuts: Any, tally_6: Integers) -> None:
    """Evaluated pixels of one column of the crop."""
    tight = loose = inside = 0
    for row in range(rows[0], rows[1]):
        tight += pixel_Y[row] > cuts[0]
        inside += pixel_Y[row] > cuts[1]
        loose += pixel_Y[row] > cuts[2]
    tally_6[TIGHT] += tight
    tally_6[LOOSE] += loose
    if inside:
        first, last = rows[0], rows[1] - 1
        while not pixel_Y[first] > cuts[1]:
            first += 1
        while not pixel_Y[last] > cuts[1]:
            last -= 1
        _extend(tally_6, column, first, column, last)


@compiled
def _extend(tally_6: Integers, left: Any, top: Any, right: Any, bottom: Any) -> None:
    tally_6[LEFT] = min(tally_6[LEFT], left)
    tally_6[TOP] = min(tally_6[TOP], top)
    tally_6[RIGHT] = max(tally_6[RIGHT], right)
    tally_6[BOTTOM] = max(tally_6[BOTTOM], bottom)
