"""Pictures for an explanation: crops with their points, and a few masks on the part of the image around them.

Owns colours and sizes. A mask is looked up in its run lengths at the pixels that are shown.
Legend: H W pixels of the image, h w pixels shown, M runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.explain.records import Box, Example, PromptedCrop, Role, Shape
from pipeline.look.drawing import Picture, scaled
from pipeline.masks.rle import Rle

COLOURS = {Role.KEPT: (0, 170, 200), Role.REMOVED: (220, 38, 80), Role.ADDED: (240, 180, 0)}
"""RGB; the page's style has the same for its legend."""
POINT, FRAME = (255, 255, 255), (20, 20, 20)
FILL, OUTLINE = 0.5, 0.95
OUTLINE_KERNEL = np.ones((5, 5), np.uint8)
TILE = 320
"""Pixels of the longer side of a picture of a few masks."""
MARGIN, LEAST = 0.35, 48
"""What is shown around a mask, as a share of its longer side; and the least side that is shown, in pixels."""

Flags = npt.NDArray[np.bool_]


def layers(image_HW3: Picture, crops: Sequence[PromptedCrop]) -> list[tuple[int, Picture]]:
    """For each crop layer the image with the layer's crops and points."""
    return [
        (layer, _layer(image_HW3, list(several))) for layer, several in groupby(crops, lambda each: each.crop.layer)
    ]


def _layer(image_HW3: Picture, crops: Sequence[PromptedCrop]) -> Picture:
    picture = _dimmed(scaled(image_HW3))
    scale = picture.shape[1] / image_HW3.shape[1]
    radius = max(1, round(picture.shape[1] / 450))
    for number, prompted in enumerate(crops):
        colour = _hue(number, len(crops))
        for x, y in prompted.points:
            cv2.circle(picture, (round(x * scale), round(y * scale)), radius, colour, -1, cv2.LINE_AA)
        x0, y0, x1, y1 = (round(side * scale) for side in prompted.crop.box_xyxy)
        cv2.rectangle(picture, (x0 + 1, y0 + 1), (x1 - 2, y1 - 2), colour, 2)
    return picture


def _dimmed(rgb_hw3: Picture) -> Picture:
    return (rgb_hw3 * 0.5).astype(np.uint8)


def _hue(number: int, of: int) -> tuple[int, int, int]:
    if of == 1:
        return POINT
    hsv_113 = np.array([[[round(180 * number / of), 130, 255]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv_113, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def tile(image_HW3: Picture, example: Example) -> Picture:
    """The example on the part of the image around its masks."""
    x0, y0, x1, y1 = window = _window(example, (image_HW3.shape[0], image_HW3.shape[1]))
    scale = TILE / max(x1 - x0, y1 - y0)
    size_wh = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    picture = np.asarray(cv2.resize(image_HW3[y0:y1, x0:x1], size_wh, interpolation=how), np.uint8)
    picture = _over(picture, example.shapes, window)
    for shape in example.shapes:
        if shape.boxed and shape.rle.area:
            _rectangle(picture, shape.rle.box_xyxy, window, COLOURS[shape.role])
    if example.crop:
        _dashes(picture, example.crop, window)
    if example.point_xy:
        x, y = (round((at - start) * scale) for at, start in zip(example.point_xy, (x0, y0), strict=True))
        cv2.circle(picture, (x, y), 5, FRAME, -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y), 3, POINT, -1, cv2.LINE_AA)
    return picture


def _window(example: Example, hw: tuple[int, int]) -> Box:
    boxes = [shape.rle.box_xyxy for shape in example.shapes if shape.rle.area]
    x, y = example.point_xy or (0.0, 0.0)
    boxes = boxes or [(int(x), int(y), int(x), int(y))]
    x0, y0 = (min(box[side] for box in boxes) for side in (0, 1))
    x1, y1 = (max(box[side] for box in boxes) + 1 for side in (2, 3))
    side = max(x1 - x0, y1 - y0, LEAST)
    margin = round(MARGIN * side)
    half = side // 2 + margin
    middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
    return max(0, middle_x - half), max(0, middle_y - half), min(hw[1], middle_x + half), min(hw[0], middle_y + half)


def _over(picture: Picture, shapes: Sequence[Shape], window: Box) -> Picture:
    """Where masks lie on one another the last one shows, alone; of one that is not filled its outline."""
    colour_hw3, share_hw = np.zeros(picture.shape), np.zeros(picture.shape[:2])
    for shape in shapes:
        inside_hw = _inside(shape.rle, window, (picture.shape[0], picture.shape[1]))
        eroded_hw = np.asarray(cv2.erode(inside_hw.astype(np.uint8), OUTLINE_KERNEL), np.uint8) > 0
        shown_hw = inside_hw if shape.filled else inside_hw & ~eroded_hw
        colour_hw3[shown_hw] = COLOURS[shape.role]
        share_hw[shown_hw] = np.where(eroded_hw[shown_hw], FILL, OUTLINE)
    return np.rint(picture + share_hw[..., None] * (colour_hw3 - picture)).astype(np.uint8)


def _inside(rle: Rle, window: Box, shown_hw: tuple[int, int]) -> Flags:
    """The mask at the middle of each pixel that is shown."""
    x0, y0, x1, y1 = window
    columns_w = x0 + (2 * np.arange(shown_hw[1]) + 1) * (x1 - x0) // (2 * shown_hw[1])
    rows_h = y0 + (2 * np.arange(shown_hw[0]) + 1) * (y1 - y0) // (2 * shown_hw[0])
    end_M = rle.run_M.cumsum()
    return np.searchsorted(end_M, columns_w[None, :] * rle.hw[0] + rows_h[:, None], side="right") % 2 == 1


def _placed(picture: Picture, box: Box, window: Box) -> Box:
    """A box in the picture's own pixels; its right and bottom are the last ones inside."""
    scale_x, scale_y = picture.shape[1] / (window[2] - window[0]), picture.shape[0] / (window[3] - window[1])
    return (
        round((box[0] - window[0]) * scale_x),
        round((box[1] - window[1]) * scale_y),
        round((box[2] + 1 - window[0]) * scale_x) - 1,
        round((box[3] + 1 - window[1]) * scale_y) - 1,
    )


def _rectangle(picture: Picture, box: Box, window: Box, colour: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = _placed(picture, box, window)
    cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 2)


def _dashes(picture: Picture, crop: Box, window: Box) -> None:
    x0, y0, x1, y1 = _placed(picture, (crop[0], crop[1], crop[2] - 1, crop[3] - 1), window)
    for start in range(0, TILE, 12):
        for across in (y0, y1):
            cv2.line(picture, (start, across), (start + 6, across), POINT, 2)
        for along in (x0, x1):
            cv2.line(picture, (along, start), (along, start + 6), POINT, 2)
