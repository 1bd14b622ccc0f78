"""From low-resolution cells to the pixels of a crop: which cells a pixel is made of, and in which tiles to look.

A pixel is interpolated twice, as in the released code: bilinearly (pixel centres) from the cells to the model's input
square, and, the padding cut off, from there to the crop. Both steps and all weights are the same for all masks of a
crop and separate by axis; an axis is worked out once for all crops of its size. The values are made in `tiles`.
Legend: h w low-resolution cells, S the model's square input side, L lines (rows or columns) of the crop, R lines of the
square that are not padding, T tiles.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.masks.arrays import Floats, Integers

Indices = npt.NDArray[np.uint32]

TILE_PIXELS = 6
"""Least pixels along a tile (but for the last): many small ones cost more to look at than they save to evaluate."""


class Taps(NamedTuple):
    """A line of the output is `weight0` times line `index0` of the input plus `weight1` times line `index1`."""

    index0: Indices
    index1: Indices
    weight0: Floats
    weight1: Floats


class Axis(NamedTuple):
    """One axis of an `Upscaling`.

    square    the R lines of the square, from low-resolution lines
    crop      the L lines of the crop, from lines of the square
    start_T1  first crop line of each tile, and L
    low_T     first low-resolution line that some pixel of the tile depends on
    high_T    last such line
    """

    square: Taps
    crop: Taps
    start_T1: Integers
    low_T: Integers
    high_T: Integers


class Upscaling(NamedTuple):
    """How the logits of one crop become pixels. Named tuples, since compiled functions take no dataclasses."""

    x: Axis
    y: Axis

    @staticmethod
    def between(
        low_hw: tuple[int, int], *, input_side: int, resized_hw: tuple[int, int], crop_hw: tuple[int, int]
    ) -> Upscaling:
        """From (h, w) cells of the padded square, by way of the (S, S) square whose top left is the resized crop."""
        (h, w), (resized_h, resized_w), (crop_h, crop_w) = low_hw, resized_hw, crop_hw
        return Upscaling(x=_axis(w, input_side, resized_w, crop_w), y=_axis(h, input_side, resized_h, crop_h))

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Pixels of the crop."""
        return len(self.y.crop.index0), len(self.x.crop.index0)

    @property
    def used_hw(self) -> tuple[int, int]:
        """Low-resolution rows and columns, from the top left, that pixels depend on; the rest is padding."""
        return int(self.y.high_T[-1]) + 1, int(self.x.high_T[-1]) + 1


@functools.lru_cache(maxsize=64)
def _axis(low: int, side: int, resized: int, length: int) -> Axis:
    index0, index1, weight0, weight1 = _taps(low, side)
    square = Taps(index0[:resized], index1[:resized], weight0[:resized], weight1[:resized])
    crop = _taps(resized, length)
    first_L = square.index0[crop.index0].astype(np.int64)
    last_L = square.index1[crop.index1].astype(np.int64)
    cells = last_L[-1] + 1 - first_L[0]
    tile_L = first_L // math.ceil(TILE_PIXELS * cells / length)
    start_T1 = np.append(np.flatnonzero(np.diff(tile_L, prepend=-1)), length)
    return Axis(square, crop, start_T1, low_T=first_L[start_T1[:-1]], high_T=last_L[start_T1[1:] - 1])


def _taps(size_in: int, size_out: int) -> Taps:
    """Bilinear, pixel centres, edges repeated: the weights of torch's `interpolate`, to the last bit.

    torch computes in float32 with the position as one fused multiply-add; float64 holds that product exactly.
    """
    index_O = np.arange(size_out)
    if size_in == size_out:
        at_O = index_O.astype(np.float32)
    else:
        scale = np.float32(size_in) / np.float32(size_out)
        at_O = np.maximum(np.float64(scale) * (index_O + 0.5) - 0.5, 0).astype(np.float32)
    index0_O = np.minimum(at_O.astype(np.int64), size_in - 1)
    index1_O = np.minimum(index0_O + (size_in != size_out), size_in - 1)
    weight1_O = np.clip(at_O - index0_O.astype(np.float32), 0, 1).astype(np.float32)
    return Taps(index0_O.astype(np.uint32), index1_O.astype(np.uint32), np.float32(1) - weight1_O, weight1_O)
