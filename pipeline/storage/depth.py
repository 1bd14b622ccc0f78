"""Samples of any depth to 8 bits: one rule, the same for PNG and TIFF.

- Integers of b bits run from black at 0 to white at 2^b - 1. Above 8 bits their high 8 bits count; below 8 bits they
  are stretched to 0..255. Signed ones of b bits run from 0 to 2^(b-1) - 1.
- Floats are shares of white in [0, 1] if none is above 1, else 8-bit levels in [0, 255]. Not a number and infinite
  are black.
- Nothing is stretched to an image's own darkest and brightest value: a level means the same in every image.
- Refused with what to do, and never shown black, white or clipped: negative values, floats beyond both ranges, and an
  image of more than 8 bits that would be nearly black because its values leave the top 4 bits unused (12-bit values in
  16 bits). An image of nothing but zeros is black.

Owns the rule. Does not know files, colours or which samples are alpha.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.records import Status

_NEARLY_BLACK = 16
"""8-bit level that the brightest float must reach: with less, the top 4 bits are unused."""
_BLOCK = 1 << 22
"""Samples that are worked on at once, so that temporary copies stay small beside a large image."""

Samples = npt.NDArray[Any]
Levels = npt.NDArray[np.uint8]


def integers_to_8_bits(
    samples: Samples, *, bits: int, judged: int, inverted: bool = False, cure: str = "scale them to the whole range"
) -> Levels:
    """`samples` of `bits` value bits as 8-bit levels, by this file's rule.

    samples   (H, W, S) integers, each below 2^bits
    judged    how many of the S samples are colours; the others (alpha) may have any value
    inverted  0 is white
    cure      what to do about values that would be nearly black
    raises    InputError with UNREADABLE and the reason
    """
    colours = samples[..., :judged]
    low, high, white = int(colours.min()), int(colours.max()), 2**bits - 1
    if low < 0:
        raise _refusal(f"it has negative values (down to {low:,}), which have no grey; scale the values to 0..255")
    if bits > 8 and 0 < high < 2 ** (bits - 4):
        reason = f"its {bits}-bit values reach only {high:,} of {white:,}, which would be nearly black"
        raise _refusal(f"{reason}; {cure}")
    levels = np.empty(samples.shape, np.uint8)
    if bits > 8:
        np.right_shift(samples, bits - 8, out=levels, casting="unsafe")
    else:
        stretched = np.rint(np.linspace(0, 255, 2**bits)).astype(np.uint8)
        np.take(stretched, samples, out=levels)
    return np.subtract(255, levels, out=levels) if inverted else levels


def floats_to_8_bits(samples: Samples, *, judged: int, inverted: bool = False) -> Levels:
    """`samples` of any float type as 8-bit levels; the arguments are those of `integers_to_8_bits`."""
    low, high = _finite_range(samples[..., :judged])
    scale = 255.0 if np.rint(high * 255.0) <= 255 else 1.0
    if np.rint(low * scale) < 0 or np.rint(high * scale) > 255:
        raise _refusal(
            f"its values run from {low:g} to {high:g}; "
            "floats are shares of white in [0, 1] or levels in [0, 255]: scale them to one of these"
        )
    if high > 0 and np.rint(high * scale) < _NEARLY_BLACK:
        white = "1" if scale > 1 else "255"
        raise _refusal(f"its values reach only {high:g} of {white}, which would be nearly black; scale them to [0, 1]")
    levels = np.empty(samples.shape, np.uint8)
    for rows in _blocks(samples):
        finite = np.isfinite(samples[rows])
        shades = np.rint(np.where(finite, samples[rows], 0).astype(np.float64) * scale).clip(0, 255)
        levels[rows] = np.where(finite, 255 - shades if inverted else shades, 0)
    return levels


def _finite_range(samples: Samples) -> tuple[float, float]:
    lows: list[float] = []
    highs: list[float] = []
    for rows in _blocks(samples):
        block = samples[rows]
        finite = block[np.isfinite(block)]
        if finite.size:
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    if not lows:
        raise _refusal("none of its values is a finite number")
    return min(lows), max(highs)


def _blocks(samples: Samples) -> Iterator[slice]:
    rows = max(1, _BLOCK // max(1, samples[:1].size))
    for start in range(0, len(samples), rows):
        yield slice(start, start + rows)


def _refusal(reason: str) -> InputError:
    return InputError(Status.UNREADABLE, reason)
