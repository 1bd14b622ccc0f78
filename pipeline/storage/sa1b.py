"""An image and its masks as SA-1B's annotation JSON, and a mask read back from such a JSON.

Owns the JSON's keys and types. They are exactly those of the published dataset, because its strictest readers accept
no others. Knows no files.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.records import ImageRow, Mask


def sa1b_annotation(row: ImageRow) -> dict[str, Any]:
    """The image and its masks as SA-1B's own JSON: 4 image keys, 8 annotation keys, ints and floats kept apart."""
    return {
        "image": {
            "image_id": row.image_id,
            "width": row.width,
            "height": row.height,
            "file_name": posixpath.basename(row.file_name),
        },
        "annotations": [
            {
                "bbox": _floats(mask.bbox_xywh),
                "area": int(mask.area),
                "segmentation": {"size": [row.height, row.width], "counts": mask.counts},
                "predicted_iou": float(mask.predicted_iou),
                "point_coords": [_floats(mask.point_xy)],
                "crop_box": _floats(mask.crop_box_xywh),
                "id": annotation_id,
                "stability_score": float(mask.stability_score),
            }
            for annotation_id, mask in enumerate(row.masks, start=row.first_annotation_id)
        ],
    }


def mask_of(annotation: Mapping[str, Any], *, crop_layer: int, multimask_index: int) -> Mask:
    """The mask that an SA-1B annotation describes. It has no keys for the two numbers, so they are passed."""
    x, y = annotation["point_coords"][0]
    bx, by, bw, bh = annotation["bbox"]
    cx, cy, cw, ch = annotation["crop_box"]
    return Mask(
        counts=annotation["segmentation"]["counts"],
        bbox_xywh=(bx, by, bw, bh),
        area=annotation["area"],
        predicted_iou=annotation["predicted_iou"],
        stability_score=annotation["stability_score"],
        point_xy=(x, y),
        crop_box_xywh=(cx, cy, cw, ch),
        crop_layer=crop_layer,
        multimask_index=multimask_index,
    )


def _floats(values: Iterable[float]) -> list[float]:
    return [float(value) for value in values]
