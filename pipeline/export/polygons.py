"""Masks as polygons: a line of text each for YOLO, a shape for each part in labelme's JSON.

Owns what these formats can say of a mask. Their polygons come from outlines.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.export.names import file_extension, reference
from pipeline.export.outlines import as_one, corners, parts_of
from pipeline.export.records import ExportImage, File, Item, Joined, LeftOut, index_file, index_item, json_bytes
from pipeline.records import ImageRow, Mask

LABEL = "object"
_DATA_YAML = b"train: images\nval: images\nnames:\n  0: object\n"
"""Without `path` Ultralytics takes the folder of this file for the root of the dataset; `.` would be its own folder."""
_INSIDE = 0.25
"""Where in its pixel a coordinate lies. Readers multiply and then cut off the fraction (Ultralytics) or round
(supervision); both get the pixel back."""
LABELME_VERSION = "5.5.0"


class YoloLabels:
    """See `Writer`. One line a mask: class 0 and its one polygon, in shares of width and height."""

    joined: tuple[Joined, ...] = (index_file(),)
    constant: tuple[File, ...] = (File("data.yaml", _DATA_YAML),)
    named_by_stem = True
    is_one_file = False

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        for image in images:
            row, name = image.row, f"labels/{image.stem}.txt"
            lines = [_yolo_line(mask, row, self._tolerance) for mask in row.masks if mask.area]
            yield File(name, "".join(lines).encode())
            if image.data is not None:
                yield File(f"images/{image.stem}{file_extension(row.file_name, image.data)}", image.data)
            yield index_item(row, name)


class LabelmeFiles:
    """See `Writer`. Shapes of one `group_id` are the parts of one mask."""

    joined: tuple[Joined, ...] = (index_file(),)
    constant: tuple[File, ...] = ()
    named_by_stem = True
    is_one_file = False

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        for image in images:
            row, name = image.row, f"{image.stem}.json"
            path = reference(row.file_name, row.image_id).rpartition("/")[2]
            if image.data is not None:
                path = image.stem + file_extension(row.file_name, image.data)
                yield File(path, image.data)
            yield File(name, json_bytes(_labelme(row, path, self._tolerance)))
            yield index_item(row, name)


def _yolo_line(mask: Mask, row: ImageRow, tolerance: float) -> str:
    polygon_P2 = corners(as_one(parts_of(mask.counts, (row.height, row.width), tolerance=tolerance)))
    shares = (polygon_P2 + _INSIDE) / np.array([row.width, row.height])
    return " ".join(["0", *(f"{share:.6f}".rstrip("0") for share in shares.ravel().tolist())]) + "\n"


def _labelme(row: ImageRow, path: str, tolerance: float) -> dict[str, Any]:
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [shape for place, mask in enumerate(row.masks) for shape in _shapes(place, mask, row, tolerance)],
        "imagePath": path,
        "imageData": None,
        "imageHeight": row.height,
        "imageWidth": row.width,
    }


def _shapes(place: int, mask: Mask, row: ImageRow, tolerance: float) -> Iterator[dict[str, Any]]:
    for part in parts_of(mask.counts, (row.height, row.width), tolerance=tolerance):
        yield {
            "label": LABEL,
            "points": corners(part.point_P2).astype(np.float64).tolist(),
            "group_id": place,
            "description": f"predicted IoU {mask.predicted_iou:.3f}, stability {mask.stability_score:.3f}",
            "shape_type": "polygon",
            "flags": {},
        }
