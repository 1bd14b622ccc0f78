"""Samples of any depth to 8 bits: three rules, the same for PNG and TIFF, of which a run has one.

Unsigned integers of at most 8 bits are the same in all: stretched to 0..255 from their bits.

`scale`, which nobody has to ask for: a level means the same in every image.
- Integers of b bits run from black at 0 to white at 2^b - 1. Above 8 bits their high 8 bits count. Signed ones of b
  bits run from 0 to 2^(b-1) - 1.
- Floats are shares of white in [0, 1] if none is above 1, else 8-bit levels in [0, 255].
- Refused with what to do, and never shown black, white or clipped: negative values, floats beyond both ranges, and an
  image of more than 8 bits that would be nearly black because its values leave the top 4 bits unused (12-bit values in
  16 bits). An image of nothing but zeros is black.

`stretch`: an image's lowest value is black and its highest white, the same for all of its colours. One of a single
value is black.

`clip`: values are 8-bit levels. Below 0 is black, above 255 is white; floats of which none is above 1 are shares.

Not a number and infinite are black in all of them, and an image of nothing else is refused.

Owns the rules. Does not know files, colours or which samples are alpha.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.records import Status
from pipeline.settings import Depth

_NEARLY_BLACK = 16
"""8-bit level that the brightest float must reach: with less, the top 4 bits are unused."""
_BLOCK = 1 << 22
"""Samples that are worked on at once, so that temporary copies stay small beside a large image."""

Samples = npt.NDArray[Any]
Levels = npt.NDArray[np.uint8]


def integers_to_8_bits(
    samples: Samples,
    *,
    bits: int,
    judged: int,
    inverted: bool = False,
    cure: str = "set image.depth=stretch, or scale them to the whole range",
    rule: Depth = Depth.SCALE,
) -> Levels:
    """`samples` of `bits` value bits as 8-bit levels, by this file's rules.

    samples   (H, W, S) integers, each below 2^bits
    judged    how many of the S samples are colours; the others (alpha) may have any value
    inverted  0 is white
    cure      what to do about values that would be nearly black
    raises    InputError with UNREADABLE and the reason
    """
    if bits > 8 or samples.dtype.kind != "u":
        if rule is Depth.STRETCH:
            colours = samples[..., :judged]
            return _linear(samples, int(colours.min()), int(colours.max()), inverted=inverted)
        if rule is Depth.CLIP:
            return _linear(samples, 0, 255, inverted=inverted)
    levels = _scaled(samples, bits, samples[..., :judged], cure)
    return np.subtract(255, levels, out=levels) if inverted else levels


def _scaled(samples: Samples, bits: int, colours: Samples, cure: str) -> Levels:
    low, high, white = int(colours.min()), int(colours.max()), 2**bits - 1
    if low < 0:
        raise _refusal(
            f"it has negative values (down to {low:,}), which have no grey; set image.depth=stretch or clip, or scale "
            "the values to 0..255"
        )
    if bits > 8 and 0 < high < 2 ** (bits - 4):
        reason = f"its {bits}-bit values reach only {high:,} of {white:,}, which would be nearly black"
        raise _refusal(f"{reason}; {cure}")
    levels = np.empty(samples.shape, np.uint8)
    if bits > 8:
        np.right_shift(samples, bits - 8, out=levels, casting="unsafe")
    else:
        stretched = np.rint(np.linspace(0, 255, 2**bits)).astype(np.uint8)
        np.take(stretched, samples, out=levels)
    return levels


def floats_to_8_bits(samples: Samples, *, judged: int, inverted: bool = False, rule: Depth = Depth.SCALE) -> Levels:
    """`samples` of any float type as 8-bit levels; the arguments are those of `integers_to_8_bits`."""
    low, high = _finite_range(samples[..., :judged])
    if rule is Depth.STRETCH:
        return _linear(samples, low, high, inverted=inverted)
    white = 1.0 if np.rint(high * 255.0) <= 255 else 255.0
    if rule is Depth.SCALE:
        _check_range(low, high, white)
    return _linear(samples, 0.0, white, inverted=inverted)


def _check_range(low: float, high: float, white: float) -> None:
    scale = 255.0 / white
    darkest, brightest = np.rint(low * scale), np.rint(high * scale)
    if darkest < 0 or brightest > 255:
        raise _refusal(
            f"its values run from {low:g} to {high:g}; floats are shares of white in [0, 1] or levels in [0, 255]: set "
            "image.depth=stretch or clip, or scale them to one of these"
        )
    if high > 0 and brightest < _NEARLY_BLACK:
        reason = f"its values reach only {high:g} of {white:g}, which would be nearly black"
        raise _refusal(f"{reason}; set image.depth=stretch, or scale them to [0, 1]")


def _linear(samples: Samples, black: float, white: float, *, inverted: bool) -> Levels:
    """From 0 at `black` to 255 at `white`, rounded; beyond them clipped. What is not finite is 0."""
    levels = np.empty(samples.shape, np.uint8)
    span = float(white) - float(black)
    if not np.isfinite(span):
        raise _refusal(f"its values run from {black:g} to {white:g}, which is more than a number can hold")
    for rows in _blocks(samples):
        values = samples[rows].astype(np.float64)
        finite = np.isfinite(values)
        values[~finite] = black
        values -= black
        if span != 255.0:
            values /= span or 1.0
            values *= 255.0
        shades = np.rint(values, out=values).clip(0, 255, out=values)
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
