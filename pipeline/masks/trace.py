"""From low-resolution logits straight to the runs of the full-size mask.

Owns which stretches of a column need their pixels, and where the runs end.
Legend: w h low-resolution cells (transposed), T U tiles along x and y, V stretches of equal tiles, Y rows of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.masks.arrays import Floats, Integers
from pipeline.masks.compiled import compiled
from pipeline.masks.rle import Rle, Runs, lengths
from pipeline.masks.tiles import evaluate, make_workspace, runs_through, tile_bounds
from pipeline.masks.upscaling import Upscaling

OUTSIDE, INSIDE, UNDECIDED = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class UntracedMask:
    """A mask that may never be needed at full size: the pixels of its crop above 0.

    logits_wh  float32, contiguous, transposed, at least `upscaling.used_hw`
    """

    logits_wh: Floats
    upscaling: Upscaling

    def traced(self) -> Rle:
        """Its runs in the crop's frame."""
        return Rle(self.upscaling.crop_hw, _trace(self.logits_wh, self.upscaling))


@compiled
def _trace(logits_wh: Floats, upscaling: Upscaling) -> Runs:
    x, y = upscaling
    low_TU, high_TU = tile_bounds(logits_wh, upscaling)
    height = len(y.crop.index0)
    space = make_workspace(upscaling)
    kind_V = np.empty(len(y.low_T), np.int64)
    row_V1 = np.zeros(len(y.low_T) + 1, np.int64)
    ends = np.zeros(1024, np.int64)  # 0, then the positions, column by column, at which a run ends
    count = np.int64(1)
    for tile in range(len(low_TU)):
        stretches = _stretches(low_TU[tile], high_TU[tile], y.start_T1, kind_V, row_V1)
        for v in range(stretches):
            if kind_V[v] == UNDECIDED:
                evaluate(logits_wh, upscaling, tile, row_V1[v], row_V1[v + 1], space)
        for column in range(x.start_T1[tile], x.start_T1[tile + 1]):
            if count + height >= len(ends):
                ends = _longer(ends, by=len(ends) + height)
            pixel_Y = space.pixel_KY[column - x.start_T1[tile]]
            count = _trace_column(pixel_Y, kind_V[:stretches], row_V1, column * height, ends, count)
    ends[count] = height * len(x.crop.index0)
    return lengths(ends[: count + 1])


@compiled
def _longer(ends: Integers, by: int) -> Integers:
    longer = np.zeros(len(ends) + by, np.int64)
    for i in range(len(ends)):
        longer[i] = ends[i]
    return longer


@compiled
def _stretches(low_U: Floats, high_U: Floats, start_U1: Integers, kind_V: Integers, row_V1: Integers) -> int:
    """Neighbouring tiles of one kind: their kind and first row, the end of the last one; returns their number."""
    count = 0
    for u in range(len(low_U)):
        kind = UNDECIDED
        if not runs_through(low_U[u], high_U[u], np.float32(0)):
            kind = INSIDE if low_U[u] > 0 else OUTSIDE
        if count == 0 or kind != kind_V[count - 1]:
            kind_V[count] = kind
            row_V1[count] = start_U1[u]
            count += 1
    row_V1[count] = start_U1[len(low_U)]
    return count


@compiled
def _trace_column(pixel_Y: Floats, kind_V: Integers, row_V1: Integers, origin: int, ends: Integers, count: Any) -> int:
    """Add where runs end in the column that begins at position `origin`; returns the new number of ends.

    An odd number of ends (the 0 among them) means that the run so far is outside the mask.
    """
    for v in range(len(kind_V)):
        if kind_V[v] == UNDECIDED:
            for row in range(row_V1[v], row_V1[v + 1]):
                if (pixel_Y[row] > 0) == (count % 2 == 1):
                    ends[count] = origin + row
                    count += 1
        elif (kind_V[v] == INSIDE) == (count % 2 == 1):
            ends[count] = origin + row_V1[v]
            count += 1
    return count
