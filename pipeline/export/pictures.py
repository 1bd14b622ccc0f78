"""Masks as PNG: one file an image in which every pixel has one mask, or one file a mask beside a table.

Owns who wins a pixel that several masks have. Works on one image at a time, and never on more than one frame of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import ContractError, DamagedError
from pipeline.export.outlines import columns_of
from pipeline.export.records import ExportImage, File, Item, Joined, LeftOut, Wins, csv_line, index_file, index_item
from pipeline.masks.rle import filling
from pipeline.records import Mask

Levels_HW = npt.NDArray[Any]
"""uint8 or uint16."""

MOST_MASKS = 2**16 - 1
AMG_COLUMNS = (
    *("id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y"),
    *("predicted_iou", "stability_score", "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h"),
)
"""Of metadata.csv. Source: facebookresearch/segment-anything, scripts/amg.py, write_masks_to_folder."""


class LabelMaps:
    """See `Writer`. A pixel is 0 for no mask, else the place of a mask in its image's list, counted from 1."""

    joined: tuple[Joined, ...] = (index_file(more=("bits", "visible_masks", "uncovered")),)
    constant: tuple[File, ...] = ()
    named_by_stem = True
    is_one_file = False

    def __init__(self, wins: Wins) -> None:
        self._wins = wins

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        for image in images:
            row, name = image.row, f"{image.stem}.png"
            if len(row.masks) > MOST_MASKS:
                yield LeftOut(row, f"{row.file_name} has {len(row.masks):,} masks; a PNG has {MOST_MASKS:,} at most")
                continue
            levels_HW = label_map(row.masks, (row.height, row.width), self._wins)
            pixels_L = np.bincount(levels_HW.ravel(), minlength=len(row.masks) + 1)
            uncovered, visible = pixels_L[0] / levels_HW.size, np.count_nonzero(pixels_L[1:])
            yield File(name, as_png(levels_HW))
            yield index_item(row, name, more=(8 * levels_HW.itemsize, visible, f"{uncovered:.6f}"))


class MaskFolders:
    """See `Writer`. Folders as the released amg.py makes them."""

    joined: tuple[Joined, ...] = (index_file(),)
    constant: tuple[File, ...] = ()
    named_by_stem = True
    is_one_file = False

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        for image in images:
            row = image.row
            for place, mask in enumerate(row.masks):
                inside_Hw, left = columns_of(mask.counts, (row.height, row.width))
                mask_HW = np.zeros((row.height, row.width), np.uint8)
                mask_HW[:, left : left + inside_Hw.shape[1]] = inside_Hw * 255
                yield File(f"{image.stem}/{place}.png", as_png(mask_HW))
            lines = [csv_line(AMG_COLUMNS), *(csv_line(_amg(place, mask)) for place, mask in enumerate(row.masks))]
            yield File(f"{image.stem}/metadata.csv", b"".join(lines).rstrip(b"\n"))
            yield index_item(row, image.stem)


def label_map(masks: Sequence[Mask], hw: tuple[int, int], wins: Wins) -> Levels_HW:
    """(H, W), 8 bits for up to 255 masks. Masks are painted from the one that loses to the one that wins; of two equal
    ones the earlier wins."""
    kind = np.uint8 if len(masks) <= 255 else np.uint16
    levels_HW = np.zeros(hw, kind, order="F")

    def strength(place: int) -> tuple[float, int]:
        mask = masks[place]
        return (-mask.area if wins is Wins.SMALLEST else mask.predicted_iou), -place

    for place in sorted(range(len(masks)), key=strength):
        _paint(levels_HW, masks[place], place + 1)
    return levels_HW


def _paint(levels_HW: Levels_HW, mask: Mask, level: int) -> None:
    """Run by run: a mask has fewer of them than its frame has pixels."""
    height, width = levels_HW.shape
    try:
        run_M = filling(mask.counts, (height, width)).run_M
    except ValueError as error:
        raise DamagedError(f"a part is damaged: {error}; make verify tells more") from error
    flat = levels_HW.reshape(-1, order="F")
    ends = np.cumsum(run_M)
    for start, stop in zip(ends[:-1:2].tolist(), ends[1::2].tolist(), strict=True):
        flat[start:stop] = level


def as_png(levels_HW: Levels_HW) -> bytes:
    done, data = cv2.imencode(".png", np.ascontiguousarray(levels_HW))
    if not done:
        raise ContractError(f"OpenCV wrote no PNG of {levels_HW.shape}")
    return data.tobytes()


def _amg(place: int, mask: Mask) -> list[Any]:
    box, crop = (map(_whole, values) for values in (mask.bbox_xywh, mask.crop_box_xywh))
    return [place, mask.area, *box, *mask.point_xy, mask.predicted_iou, mask.stability_score, *crop]


def _whole(value: float) -> float | int:
    """amg.py writes boxes as integers."""
    return int(value) if value == int(value) else value
