"""Is a stored mask what is said of it? Reads COCO's packed run lengths back, never as pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.masks.rle import Rle


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


def unpacked(counts: str) -> npt.NDArray[np.int64]:
    """The runs, background first.

    A number is a chain of characters of 6 bits (from "0" up), low bits first: 5 of value, 1 for "more follows"; the
    last one's top value bit is the sign. From the fourth run on the numbers are differences to the run before the last.

    raises  ValueError if the characters are none of these, or the last chain has no end
    """
    bits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - ord("0")
    last = (bits & 0x20) == 0
    if not len(bits) or bits.min() < 0 or bits.max() > 0x3F or not last[-1]:
        raise ValueError("no packed numbers")
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    length = np.diff(starts, append=len(bits))
    if length.max() > 12:
        raise ValueError("a number of more than 60 bits")
    place = 5 * (np.arange(len(bits)) - np.repeat(starts, length))
    values = np.add.reduceat((bits & 0x1F) << place, starts)
    values -= ((bits[last] & 0x10) != 0) * (np.int64(32) << place[last])
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values
