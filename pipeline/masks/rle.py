"""Masks as run lengths: measure, move to a larger frame, pack as COCO's compressed strings, read them back and check.

Owns the format: column-major runs, the first one background and maybe empty. Only `pack_pixels` and `mask_pixels` touch
every pixel of the frame.
Legend: M runs, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.masks.compiled import compiled

Runs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Mask_HW = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Rle:
    """A binary mask.

    hw     the frame it fills
    run_M  its run lengths in pixels, of which only the first may be 0; they fill the frame
    """

    hw: tuple[int, int]
    run_M: Runs

    @property
    def area(self) -> int:
        """Pixels inside the mask."""
        return int(self.run_M[1::2].sum())

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """First and last column and row inside the mask; zeros if it is empty."""
        x0, y0, x1, y1 = _box(self.run_M, self.hw[0])
        return int(x0), int(y0), int(x1), int(y1)

    def pasted(self, *, at_xy: tuple[int, int], frame_hw: tuple[int, int]) -> Rle:
        """The same mask in a larger frame, its top left at `at_xy`; background elsewhere."""
        if self.hw == frame_hw:
            return self
        x, y = at_xy
        height, width = frame_hw
        return Rle(frame_hw, _paste(self.run_M, self.hw[0], x * height + y, height, height * width))

    def packed(self) -> str:
        """The runs as COCO's JSON has them.

        A number is a chain of characters of 6 bits (from "0" up), low bits first: 5 of value, 1 for "more follows"; the
        last one's top value bit is the sign. From the fourth run on the numbers are differences to the run before the
        last.
        """
        return _pack(self.run_M).tobytes().decode("ascii")


def rle_problem(counts: str, hw: tuple[int, int], *, area: int, bbox_xywh: tuple[float, float, float, float]) -> str:
    """Empty if the runs fill the frame and have this area and this box (SA-1B's convention), else what is wrong.

    The box of a mask without pixels is not looked at.
    """
    try:
        runs = unpacked(counts)
    except (ValueError, IndexError) as error:
        return f"the run lengths cannot be read ({error})"
    if (runs[1:] <= 0).any() or runs[0] < 0:
        return "the run lengths are not all above 0"
    if runs.sum() != hw[0] * hw[1]:
        return f"the run lengths have {runs.sum()} pixels, the image {hw[0] * hw[1]}"
    rle = Rle(hw, runs)
    if rle.area != area:
        return f"the area is {rle.area}, not {area}"
    x0, y0, x1, y1 = rle.box_xyxy
    box = (float(x0), float(y0), float(x1 - x0), float(y1 - y0)) if area else bbox_xywh
    return "" if box == bbox_xywh else f"the box is {box}, not {bbox_xywh}"


def unpacked(counts: str) -> Runs:
    """The runs of `Rle.packed`, background first.

    raises  ValueError if the characters are none of these, or the last chain has no end
    """
    return unpack(np.frombuffer(counts.encode("ascii"), np.uint8))


def filling(counts: str, hw: tuple[int, int]) -> Rle:
    """The mask of these packed run lengths. Others than ours may have written runs of no pixel, which stay.

    raises  ValueError if they cannot be read or do not fill the frame
    """
    try:
        run_M = unpacked(counts)
    except (ValueError, IndexError) as error:
        raise ValueError(f"the run lengths of a mask cannot be read ({error})") from error
    if (run_M < 0).any() or run_M.sum() != hw[0] * hw[1]:
        raise ValueError(f"the run lengths of a mask do not fill its image of {hw[1]} x {hw[0]}")
    return Rle(hw, run_M)


def pack_pixels(mask_HW: Mask_HW) -> str:
    """COCO's packed run lengths of a mask."""
    columns = np.ascontiguousarray(mask_HW.T).ravel()
    changes = np.flatnonzero(np.diff(columns, prepend=False))
    ends = np.concatenate([[0], changes, [len(columns)]])
    return Rle((mask_HW.shape[0], mask_HW.shape[1]), np.diff(ends)).packed()


def mask_pixels(counts: str, hw: tuple[int, int]) -> Mask_HW:
    """The inverse of `pack_pixels`; of masks that fill the frame."""
    runs = unpacked(counts)
    inside = (np.arange(len(runs)) % 2).astype(np.bool_)
    return np.repeat(inside, runs).reshape(hw[1], hw[0]).T


@compiled
def unpack(packed: Bytes) -> Runs:
    """The runs of these characters, as `unpacked`; for compiled functions. The characters must not be writable."""
    run_M = np.empty(len(packed), np.int64)
    count = shift = 0
    value = np.int64(0)
    for character in packed:
        bits = np.int64(character) - 48
        if bits < 0 or bits > 0x3F:
            raise ValueError("no packed numbers")
        if shift == 60:
            raise ValueError("a number of more than 60 bits")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= np.int64(1) << shift
            run_M[count] = value + (run_M[count - 2] if count > 2 else 0)
            count += 1
            value = np.int64(0)
            shift = 0
    if shift or not count:
        raise ValueError("no packed numbers")
    return run_M[:count]


@compiled
def lengths(end_M1: Runs) -> Runs:
    """Of the runs between each position and the next; for compiled functions."""
    run_M = np.empty(len(end_M1) - 1, np.int64)
    for m in range(len(run_M)):
        run_M[m] = end_M1[m + 1] - end_M1[m]
    return run_M


@compiled
def _box(run_M: Runs, height: int) -> Any:
    x0 = y0 = np.int64(2**62)
    x1 = y1 = np.int64(-1)
    start = 0
    for m in range(len(run_M)):
        stop = start + run_M[m]
        if m % 2 == 1:
            left, top = divmod(start, height)
            right, bottom = divmod(stop - 1, height)
            x0, x1 = min(x0, left), right
            y0 = min(y0, top if left == right else 0)
            y1 = max(y1, bottom if left == right else height - 1)
        start = stop
    return (x0, y0, x1, y1) if x1 >= 0 else (0, 0, 0, 0)


@compiled
def _paste(run_M: Runs, height: int, origin: int, frame_height: int, frame_pixels: int) -> Runs:
    """`origin` is the position in the frame of the mask's first pixel."""
    pixels = np.int64(0)
    for run in run_M:
        pixels += run
    ends = np.zeros(2 * (pixels // height + len(run_M) + 1), np.int64)
    count, start = 1, 0
    for m in range(len(run_M)):
        stop = start + run_M[m]
        while m % 2 == 1 and start < stop:
            column, row = divmod(start, height)
            piece = min(stop - start, height - row)
            place = origin + column * frame_height + row
            if count > 1 and ends[count - 1] == place:
                count -= 1  # full columns of an equally high frame are one run
            else:
                ends[count] = place
                count += 1
            ends[count] = place + piece
            count += 1
            start += piece
        start = stop
    if ends[count - 1] < frame_pixels or count == 1:
        ends[count] = frame_pixels
        count += 1
    return lengths(ends[:count])


@compiled
def _pack(run_M: Runs) -> Bytes:
    packed = np.empty(13 * len(run_M), np.uint8)  # 64 bits, 5 by 5
    count = 0
    for m in range(len(run_M)):
        value = run_M[m] - (run_M[m - 2] if m > 2 else 0)
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            packed[count] = 48 + bits + (0x20 if more else 0)
            count += 1
    return packed[:count]
