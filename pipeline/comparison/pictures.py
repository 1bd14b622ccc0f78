"""Two pictures of one image, in which what differs between the outputs is coloured and what is the same is not.

Owns the colours. They differ in lightness as well as in hue, so that no common colour blindness makes two of them one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.comparison.outputs import Output
from pipeline.comparison.records import PARTNER_IOU, ComparedImage
from pipeline.errors import StorageError
from pipeline.look.drawing import Picture, drawn_over, grey, scaled
from pipeline.look.pixels import pixels_of
from pipeline.masks.agreement import SIMILAR_IOU
from pipeline.records import ImageRow, Mask

SAME, CHANGED, VANISHED, APPEARED = (214, 222, 230), (240, 180, 0), (220, 38, 80), (0, 170, 200)
"""RGB: pale grey, yellow, red, blue-green. The page's style has the same for its legend."""
FADED = 0.35
"""How much of the image's own colour stays behind the masks."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Of A's masks and of B's. `reason` says why they lie on grey, or why there are none."""

    a: Picture | None
    b: Picture | None
    reason: str = ""


def pictures(image: ComparedImage, a: Output, b: Output) -> Pictures:
    """Pixels are those that A's masks were made of, or B's where A's source is out of reach."""
    background, reason = _background(image, a, b)
    matched = image.matched
    changed = [pair for pair in matched.pairs if PARTNER_IOU <= pair.iou < SIMILAR_IOU]
    try:
        return Pictures(
            _drawn(background, image.row_a, [pair.reference for pair in changed], matched.vanished, VANISHED),
            _drawn(background, image.row_b, [pair.other for pair in changed], matched.appeared, APPEARED),
            reason,
        )
    except StorageError as error:
        return Pictures(None, None, str(error))


def _background(image: ComparedImage, a: Output, b: Output) -> tuple[Picture, str]:
    reasons: list[str] = []
    for output, place, row in ((a, image.place_a, image.row_a), (b, image.place_b, image.row_b)):
        try:
            pixels_HW3 = pixels_of(output.sampled(place, row), output.store, output.plan.settings)
            return _faded(scaled(pixels_HW3)), ""
        except StorageError as error:
            reasons.append(str(error))
    return grey((image.row_a.height, image.row_a.width)), reasons[0]


def _faded(rgb_hw3: Picture) -> Picture:
    lightness_hw = cv2.cvtColor(rgb_hw3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.rint(rgb_hw3 * FADED + lightness_hw[..., None] * (1 - FADED)).astype(np.uint8)


def _drawn(
    background: Picture, row: ImageRow, changed: Sequence[int], alone: Sequence[int], alone_colour: tuple[int, int, int]
) -> Picture:
    """The same ones below, so that they never hide a difference."""
    different = {*changed, *alone}
    same = [number for number in range(len(row.masks)) if number not in different]
    picture, hw = background, (row.height, row.width)
    for numbers, colour in ((same, SAME), (changed, CHANGED), (alone, alone_colour)):
        masks: list[Mask] = [row.masks[number] for number in numbers]
        picture = drawn_over(picture, masks, hw, colour=colour)
    return picture
