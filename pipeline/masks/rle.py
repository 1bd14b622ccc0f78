"""Masks as COCO compressed run lengths: encode, decode, measure, move to a larger frame.

Owns the format (column-major runs, starting with background); pycocotools does the packing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask. `hw` is the frame it fills; `counts` the compressed runs as COCO's JSON has them."""

    hw: tuple[int, int]
    counts: str


def encode_mask(mask_HW: npt.NDArray[np.bool_]) -> Rle:
    """Any mask of at least one pixel; empty and full ones included."""
    packed: Any = coco_mask.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    height, width = mask_HW.shape
    return Rle(hw=(height, width), counts=packed["counts"].decode("ascii"))


def decode_mask(rle: Rle) -> npt.NDArray[np.bool_]:
    """(H, W) bool, the exact inverse of `encode_mask`."""
    height, width = rle.hw
    runs = _runs(rle.counts)
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def rle_area(rle: Rle) -> int:
    """Pixels inside the mask."""
    return int(_runs(rle.counts)[1::2].sum())


def _runs(counts: str) -> npt.NDArray[np.int64]:
    """Lengths of the runs, background first.

    A number is a chain of characters of 6 bits (from "0" up), low bits first: 5 of value, 1 for "more follows"; the
    last one's top value bit is the sign. From the fourth run on the numbers are differences to the run before the last.
    pycocotools could do this, but its decoder warns under NumPy 2, and it never gives the runs themselves.
    """
    bits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - ord("0")
    last = (bits & 0x20) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = 5 * (np.arange(len(bits)) - np.repeat(starts, np.diff(starts, append=len(bits))))
    values = np.add.reduceat((bits & 0x1F) << place, starts)
    values -= ((bits[last] & 0x10) != 0) * (np.int64(32) << place[last])
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def paste_rle(rle: Rle, *, at_xy: tuple[int, int], frame_hw: tuple[int, int]) -> Rle:
    """The same mask in a larger frame, its top left at `at_xy`; background elsewhere."""
    if rle.hw == frame_hw:
        return rle
    x0, y0 = at_xy
    height, width = rle.hw
    # Column-major like the runs, so that decoding, pasting and encoding all walk memory in order.
    frame_HW = np.zeros(frame_hw, dtype=np.bool_, order="F")
    frame_HW[y0 : y0 + height, x0 : x0 + width] = decode_mask(rle)
    return encode_mask(frame_HW)
