"""Masks drawn over their image, at the size in which they are shown.

Owns the picture: one colour a mask, smaller masks on top, a thin outline. A mask is looked up in its run lengths at the
pixels that are shown, so that the cost grows with the picture and not with the image.
Legend: H W pixels of the image, h w pixels shown, M runs, K masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import StorageError
from pipeline.masks.rle import filling
from pipeline.records import Mask

LONGER_SIDE = 900
"""Pixels of a picture; smaller images are shown as they are."""
FILL, OUTLINE = 0.45, 0.95
"""How much of a mask's colour there is inside it, and on its outermost pixels."""
GOLDEN = 0.618034
"""Steps of this share of the circle of hues keep neighbours in a list apart, however long it is."""
QUALITY = 85
GREY = 136

Picture = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


def shown_hw(hw: tuple[int, int], *, longer_side: int = LONGER_SIDE) -> tuple[int, int]:
    """The size of the picture of an image of this size."""
    scale = min(1.0, longer_side / max(1, *hw))
    return max(1, round(hw[0] * scale)), max(1, round(hw[1] * scale))


def scaled(rgb_HW3: Picture, *, longer_side: int = LONGER_SIDE) -> Picture:
    """The image as it is shown, (h, w, 3)."""
    height, width = shown_hw((rgb_HW3.shape[0], rgb_HW3.shape[1]), longer_side=longer_side)
    if rgb_HW3.shape[:2] == (height, width):
        return rgb_HW3
    return np.asarray(cv2.resize(rgb_HW3, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def grey(hw: tuple[int, int]) -> Picture:
    """What stands for an image of this size whose pixels are not there."""
    return np.full((*shown_hw(hw), 3), GREY, np.uint8)


def drawn_over(
    rgb_hw3: Picture, masks: Sequence[Mask], hw: tuple[int, int], *, colour: tuple[int, int, int] | None = None
) -> Picture:
    """The masks over the image.

    rgb_hw3  what `scaled` or `grey` returned
    hw       the size of the image
    colour   RGB of all masks; None gives each its own
    raises   StorageError if the run lengths of a mask cannot be read or do not fill the image
    """
    top_hw, edge_hw = topmost(masks, hw)
    colour_K3 = np.array([[0, 0, 0], *(colour or _colour(number) for number in range(len(masks)))], np.float32)
    share_hw1 = np.where(edge_hw, OUTLINE, FILL)[..., None].astype(np.float32)
    mixed_hw3 = rgb_hw3 + share_hw1 * (colour_K3[top_hw] - rgb_hw3)
    return np.where(top_hw[..., None] > 0, np.rint(mixed_hw3), rgb_hw3).astype(np.uint8)


def topmost(masks: Sequence[Mask], hw: tuple[int, int]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Which mask each pixel of the picture shows, and whether it is on that one's outline.

    returns  (h, w), 0 for none, else 1 and the mask's number; (h, w)
    raises   as `drawn_over`
    """
    top_hw = np.zeros(shown_hw(hw), np.int32)
    edge_hw = np.zeros(top_hw.shape, np.bool_)
    for number in largest_first(masks):
        inside_hw, left = shown_pixels(masks[number], hw)
        here = np.s_[:, left : left + inside_hw.shape[1]]
        top_hw[here][inside_hw] = number + 1
        edge_hw[here][inside_hw] = _outline(inside_hw)[inside_hw]
    return top_hw, edge_hw


def largest_first(masks: Sequence[Mask]) -> list[int]:
    """The numbers of the masks in the order in which they are drawn: each is covered by the smaller ones."""
    return sorted(range(len(masks)), key=lambda each: (-masks[each].area, each))


def shown_pixels(mask: Mask, hw: tuple[int, int]) -> tuple[npt.NDArray[np.bool_], int]:
    """The mask in the picture of an image of this size.

    returns  (h, columns), in the columns that the mask reaches into and one on each side; the first of these columns
    raises   as `drawn_over`
    """
    rows_h, columns_w = (_centres(size, shown) for size, shown in zip(hw, shown_hw(hw), strict=True))
    try:
        end_M: Rows = np.cumsum(filling(mask.counts, hw).run_M)
    except ValueError as error:
        raise StorageError(str(error)) from error
    if len(end_M) < 2:
        return np.zeros((len(rows_h), 0), np.bool_), 0
    first, last = int(end_M[0]) // hw[0], (int(end_M[1::2][-1]) - 1) // hw[0]
    left = max(0, int(np.searchsorted(columns_w, first)) - 1)
    right = int(np.searchsorted(columns_w, last, side="right")) + 1
    place_wh = columns_w[left:right, None] * hw[0] + rows_h
    return (np.searchsorted(end_M, place_wh, side="right") % 2 == 1).T, left


def _centres(size: int, shown: int) -> Rows:
    """The pixel of the image in the middle of each pixel that is shown."""
    return (2 * np.arange(shown, dtype=np.int64) + 1) * size // (2 * shown)


def _outline(inside_hw: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of the mask that have a neighbour outside of it; the image's own border is none."""
    if not inside_hw.size:
        return inside_hw
    kernel = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    eroded_hw: npt.NDArray[np.uint8] = np.asarray(cv2.erode(inside_hw.astype(np.uint8), kernel), np.uint8)
    return inside_hw & (eroded_hw == 0)


def _colour(number: int) -> tuple[int, int, int]:
    """Bright, RGB."""
    hsv_113 = np.array([[[round(180 * (number * GOLDEN % 1)) % 180, 190, 255]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv_113, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def jpeg(rgb_hw3: Picture, *, quality: int = QUALITY) -> bytes:
    """A picture as a file. `quality` is in [1, 100]."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb_hw3, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def png(rgb_hw3: Picture) -> bytes:
    """A picture as a file, without loss."""
    _, data = cv2.imencode(".png", cv2.cvtColor(rgb_hw3, cv2.COLOR_RGB2BGR))
    return data.tobytes()
