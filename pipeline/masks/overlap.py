"""How much masks overlap, from their run lengths: the IoU of every pair of two lists.

Owns the count of shared pixels. Two masks whose boxes do not meet are not looked at, and no mask is made into pixels.
Legend: D T masks of the two lists, M runs of all masks of a list one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.masks.arrays import Integers
from pipeline.masks.compiled import compiled
from pipeline.masks.rle import Rle, unpacked

IoU_DT = npt.NDArray[np.float64]


class _Masks(NamedTuple):
    """A list of masks as compiled code takes it.

    end_M      positions at which runs end, in each mask's own frame, background first
    first_D1   where the runs of each mask begin in `end_M`; then where the last one's end
    area_D     pixels inside
    box_D4     first and last column and row inside
    """

    end_M: Integers
    first_D1: Integers
    area_D: Integers
    box_D4: Integers


def pairwise_iou(counts_D: Sequence[str], counts_T: Sequence[str], hw: tuple[int, int]) -> IoU_DT:
    """(D, T) in [0, 1], of masks as COCO's packed run lengths: pixels in both per pixels in either; 0 for empty masks.

    raises  ValueError if the run lengths of a mask cannot be read or do not fill the frame
    """
    if not len(counts_D) or not len(counts_T):
        return np.zeros((len(counts_D), len(counts_T)))
    return _pairwise(_read(counts_D, hw), _read(counts_T, hw))


def _read(counts_D: Sequence[str], hw: tuple[int, int]) -> _Masks:
    rles = [_rle(counts, hw) for counts in counts_D]
    return _Masks(
        end_M=np.concatenate([rle.run_M.cumsum() for rle in rles]),
        first_D1=np.concatenate([[0], np.cumsum([len(rle.run_M) for rle in rles])]),
        area_D=np.array([rle.area for rle in rles], np.int64),
        box_D4=np.array([rle.box_xyxy for rle in rles], np.int64),
    )


def _rle(counts: str, hw: tuple[int, int]) -> Rle:
    try:
        run_M = unpacked(counts)
    except (ValueError, IndexError) as error:
        raise ValueError(f"the run lengths of a mask cannot be read ({error})") from error
    if (run_M < 0).any() or run_M.sum() != hw[0] * hw[1]:
        raise ValueError(f"the run lengths of a mask do not fill its image of {hw[1]} x {hw[0]}")
    return Rle(hw, run_M)


@compiled
def _pairwise(first: Any, second: Any) -> IoU_DT:
    iou_DT = np.zeros((len(first.area_D), len(second.area_D)), np.float64)
    for d in range(len(first.area_D)):
        a = first.box_D4[d]
        end_d = first.end_M[first.first_D1[d] : first.first_D1[d + 1]]
        for t in range(len(second.area_D)):
            b = second.box_D4[t]
            if a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]:
                continue
            shared = _shared(end_d, second.end_M[second.first_D1[t] : second.first_D1[t + 1]])
            if shared:
                iou_DT[d, t] = shared / (first.area_D[d] + second.area_D[t] - shared)
    return iou_DT


@compiled
def _shared(end_M: Integers, other_M: Integers) -> Any:
    """Pixels inside both masks. Every second run is inside, the first one is not."""
    pixels = np.int64(0)
    m = o = 1
    while m < len(end_M) and o < len(other_M):
        low = max(end_M[m - 1], other_M[o - 1])
        high = min(end_M[m], other_M[o])
        pixels += max(high - low, 0)
        if end_M[m] < other_M[o]:
            m += 2
        else:
            o += 2
    return pixels
