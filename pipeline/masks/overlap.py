"""How masks of one frame lie to one another, from their run lengths alone: no mask is ever pixels.

Owns what is counted of several masks at once. Column-major positions, as in rle.py.
Legend: N masks, D T masks of two lists (in `_depths` D depths), K runs inside a mask, M runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.masks.arrays import Integers
from pipeline.masks.compiled import compiled
from pipeline.masks.rle import Bytes, Rle, filling, unpack

IoU_DT = npt.NDArray[np.float64]


class Insides(NamedTuple):
    """The runs inside N masks of one frame.

    start_K, stop_K  the positions from and up to which each goes
    first_N1         where each mask's runs begin; the last entry is K
    """

    start_K: Integers
    stop_K: Integers
    first_N1: Integers


def insides_of(packed: Bytes, start_N1: Integers, hw: tuple[int, int]) -> Insides:
    """packed, start_N1: the characters of N packed masks, and where each begins in them

    raises  ValueError if one cannot be read or does not fill the frame
    """
    return Insides(*_insides(packed, start_N1, hw[0] * hw[1]))


def pixels_by_depth(insides: Insides, hw: tuple[int, int], *, deepest: int) -> Integers:
    """(deepest + 1,): pixels of the frame under no mask, under one, two, ...; the last: under `deepest` or more."""
    return _depths(np.sort(insides.start_K), np.sort(insides.stop_K), hw[0] * hw[1], deepest)


def pairwise_iou(counts_D: Sequence[str], counts_T: Sequence[str], hw: tuple[int, int]) -> IoU_DT:
    """(D, T) in [0, 1], of masks as COCO's packed run lengths: pixels in both per pixels in either; 0 for empty masks.

    raises  ValueError if the run lengths of a mask cannot be read or do not fill the frame
    """
    if not len(counts_D) or not len(counts_T):
        return np.zeros((len(counts_D), len(counts_T)))
    first, second = ([filling(counts, hw) for counts in several] for several in (counts_D, counts_T))
    return _pairwise(_insides_of(first), _boxes(first), _insides_of(second), _boxes(second))


def containers(counts_N: Sequence[str], hw: tuple[int, int], *, inside: float, smaller: float) -> Integers:
    """(N,): the place of the smallest mask that each lies in, -1 for none; of equally small ones the first.

    inside, smaller  a mask lies in another if at least this share of its pixels is in it, and it has at most this share
                     of the other's pixels. So parents are larger, and there are no circles

    raises  ValueError as `pairwise_iou`
    """
    if not len(counts_N):
        return np.zeros(0, np.int64)
    masks = [filling(counts, hw) for counts in counts_N]
    return _containers(_insides_of(masks), _boxes(masks), inside, smaller)


def _insides_of(masks: Sequence[Rle]) -> Insides:
    ends = [mask.run_M.cumsum() for mask in masks]
    stops = [end_M[1::2] for end_M in ends]
    starts = [end_M[: 2 * len(stop_K) : 2] for end_M, stop_K in zip(ends, stops, strict=True)]
    first_N1 = np.cumsum([0, *map(len, stops)])
    return Insides(np.concatenate(starts), np.concatenate(stops), first_N1)


def _boxes(masks: Sequence[Rle]) -> Integers:
    """(N, 4) first and last column and row."""
    return np.array([mask.box_xyxy for mask in masks], np.int64)


@compiled
def near_duplicates(insides: Insides, iou: float) -> int:
    """Pairs of masks whose IoU is above `iou`. Masks without pixels are like no other."""
    area_N = _areas(insides)
    pairs = 0
    for n in range(len(area_N)):
        for other in range(n):
            smaller, larger = min(area_N[n], area_N[other]), max(area_N[n], area_N[other])
            if smaller > iou * larger and smaller:
                common = _common(insides, n, insides, other)
                pairs += common / (smaller + larger - common) > iou
    return pairs


@compiled
def _areas(insides: Insides) -> Integers:
    first_N1 = insides.first_N1
    area_N = np.zeros(len(first_N1) - 1, np.int64)
    for n in range(len(area_N)):
        for k in range(first_N1[n], first_N1[n + 1]):
            area_N[n] += insides.stop_K[k] - insides.start_K[k]
    return area_N


@compiled
def _pairwise(first: Insides, box_D4: Integers, second: Insides, box_T4: Integers) -> IoU_DT:
    """Masks whose boxes do not meet are not looked at."""
    area_D, area_T = _areas(first), _areas(second)
    iou_DT = np.zeros((len(area_D), len(area_T)), np.float64)
    for d in range(len(area_D)):
        a = box_D4[d]
        for t in range(len(area_T)):
            b = box_T4[t]
            if a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]:
                continue
            common = _common(first, d, second, t)
            if common:
                iou_DT[d, t] = common / (area_D[d] + area_T[t] - common)
    return iou_DT


@compiled
def _containers(masks: Insides, box_N4: Integers, inside: float, smaller: float) -> Integers:
    """Candidates are looked at from the smallest on, so that the first that holds is the answer."""
    area_N = _areas(masks)
    order_N = np.argsort(area_N, kind="mergesort")
    parent_N = np.full(len(area_N), -1, np.int64)
    for n in range(len(area_N)):
        a = box_N4[n]
        for other in order_N:
            b = box_N4[other]
            if area_N[n] > smaller * area_N[other] or not area_N[n]:
                continue
            if a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]:
                continue
            if _common(masks, n, masks, other) >= inside * area_N[n]:
                parent_N[n] = other
                break
    return parent_N


@compiled
def readable_runs(packed: Bytes, pixels: int) -> Integers:
    """The runs of a mask that fills a frame of so many pixels; for compiled functions. Raises ValueError for others."""
    run_M = unpack(packed)
    total = np.int64(0)
    for m in range(len(run_M)):
        if run_M[m] < 0 or (m and not run_M[m]):
            raise ValueError("the run lengths are not all above 0")
        total += run_M[m]
    if total != pixels:
        raise ValueError("the run lengths do not fill the image")
    return run_M


@compiled
def _insides(packed: Bytes, start_N1: Integers, pixels: int) -> tuple[Integers, Integers, Integers]:
    count = len(start_N1) - 1
    most = (start_N1[count] - start_N1[0]) // 2 + count  # a run takes a character or more
    start_K, stop_K = np.empty(most, np.int64), np.empty(most, np.int64)
    first_N1 = np.zeros(count + 1, np.int64)
    k = 0
    for n in range(count):
        run_M = readable_runs(packed[start_N1[n] : start_N1[n + 1]], pixels)
        position = np.int64(0)
        for m in range(len(run_M)):
            if m % 2 == 1:
                start_K[k], stop_K[k] = position, position + run_M[m]
                k += 1
            position += run_M[m]
        first_N1[n + 1] = k
    return start_K[:k], stop_K[:k], first_N1


@compiled
def _depths(start_K: Integers, stop_K: Integers, pixels: int, deepest: int) -> Integers:
    """Both sorted: at any position the depth is the runs that have begun less those that have ended."""
    pixel_D = np.zeros(deepest + 1, np.int64)
    position, begun, ended = np.int64(0), 0, 0
    while ended < len(stop_K):
        begins = begun < len(start_K) and start_K[begun] < stop_K[ended]
        here = start_K[begun] if begins else stop_K[ended]
        pixel_D[min(begun - ended, deepest)] += here - position
        position = here
        if begins:
            begun += 1
        else:
            ended += 1
    pixel_D[0] += pixels - position
    return pixel_D


@compiled
def _common(first: Insides, n: int, second: Insides, other: int) -> Any:
    """Pixels of both a mask of the first and one of the second, which may be the same list."""
    i, j, common = first.first_N1[n], second.first_N1[other], 0
    while i < first.first_N1[n + 1] and j < second.first_N1[other + 1]:
        common += max(0, min(first.stop_K[i], second.stop_K[j]) - max(first.start_K[i], second.start_K[j]))
        if first.stop_K[i] < second.stop_K[j]:
            i += 1
        else:
            j += 1
    return common
