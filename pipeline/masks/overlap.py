"""How masks of one frame lie to one another, from their run lengths alone: no mask is ever pixels.

Owns what is counted of several masks at once. Column-major positions, as in rle.py.
Legend: N masks, K runs inside a mask, D depths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.masks.arrays import Integers
from pipeline.masks.compiled import compiled
from pipeline.masks.rle import Bytes, unpack


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


@compiled
def near_duplicates(insides: Insides, iou: float) -> int:
    """Pairs of masks whose IoU is above `iou`. Masks without pixels are like no other."""
    first_N1 = insides.first_N1
    count = len(first_N1) - 1
    area_N = np.zeros(count, np.int64)
    for n in range(count):
        for k in range(first_N1[n], first_N1[n + 1]):
            area_N[n] += insides.stop_K[k] - insides.start_K[k]
    pairs = 0
    for n in range(count):
        for other in range(n):
            smaller, larger = min(area_N[n], area_N[other]), max(area_N[n], area_N[other])
            if smaller > iou * larger and smaller:
                common = _common(insides, n, other)
                pairs += common / (smaller + larger - common) > iou
    return pairs


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
def _common(insides: Insides, n: int, other: int) -> Any:
    """Pixels of both masks."""
    start_K, stop_K, first_N1 = insides
    i, j, common = first_N1[n], first_N1[other], 0
    while i < first_N1[n + 1] and j < first_N1[other + 1]:
        common += max(0, min(stop_K[i], stop_K[j]) - max(start_K[i], start_K[j]))
        if stop_K[i] < stop_K[j]:
            i += 1
        else:
            j += 1
    return common
