"""COCO's two JSON files: a dataset with one category, and a list of results.

Owns what an annotation becomes. Boxes are COCO's own, one pixel larger than SA-1B's on each axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.export.names import reference
from pipeline.export.records import ExportImage, Family, File, Item, Joined, LeftOut, Section, json_bytes
from pipeline.records import ImageRow, Mask

CATEGORY = 1
_COMMA = b",\n"
_INFO = {"description": "Masks made by Maskmill. One category: every mask is an object."}


class CocoDataset:
    """See `Writer`. Images without masks are in it."""

    joined: tuple[Joined, ...] = (
        Joined(
            "instances.json",
            (
                Section("images", b'{"info":' + json_bytes(_INFO) + b',"licenses":[],"images":[\n', _COMMA),
                Section("annotations", b'\n],"annotations":[\n', _COMMA),
            ),
            b'\n],"categories":[{"id":1,"name":"object","supercategory":"object"}]}\n',
        ),
    )
    constant: tuple[File, ...] = ()
    named_by_stem = False
    is_one_file = True

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        for image in images:
            row = image.row
            name = reference(row.file_name, row.image_id)
            described = {"id": row.image_id, "file_name": name, "width": row.width, "height": row.height}
            yield Item("images", json_bytes(described))
            for annotation_id, mask in enumerate(row.masks, start=row.first_annotation_id):
                annotation = _annotation(row, annotation_id, mask)
                if image.families:
                    annotation |= _family(row, image.families[annotation_id - row.first_annotation_id])
                yield Item("annotations", json_bytes(annotation))


class CocoResults:
    """See `Writer`. The score is the predicted IoU."""

    joined: tuple[Joined, ...] = (Joined("results.json", (Section("results", b"[\n", _COMMA),), b"\n]\n"),)
    constant: tuple[File, ...] = ()
    named_by_stem = False
    is_one_file = True

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        for image in images:
            for mask in image.row.masks:
                yield Item("results", json_bytes(_result(image.row, mask)))


def coco_box(mask: Mask) -> list[float]:
    """As pycocotools' toBbox says it: XYWH, w = xmax - xmin + 1; zeros for a mask without pixels."""
    x, y, width, height = mask.bbox_xywh
    return [float(x), float(y), float(width + 1), float(height + 1)] if mask.area else [0.0, 0.0, 0.0, 0.0]


def coco_rle(row: ImageRow, mask: Mask) -> dict[str, Any]:
    return {"size": [row.height, row.width], "counts": mask.counts}


def _annotation(row: ImageRow, annotation_id: int, mask: Mask) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "image_id": row.image_id,
        "category_id": CATEGORY,
        "segmentation": coco_rle(row, mask),
        "area": mask.area,
        "bbox": coco_box(mask),
        "iscrowd": 0,
        "predicted_iou": mask.predicted_iou,
        "stability_score": mask.stability_score,
    }


def _family(row: ImageRow, family: Family) -> dict[str, Any]:
    parent_id = row.first_annotation_id + family.parent if family.parent >= 0 else None
    return {"parent_id": parent_id, "depth": family.depth}


def _result(row: ImageRow, mask: Mask) -> dict[str, Any]:
    return {
        "image_id": row.image_id,
        "category_id": CATEGORY,
        "segmentation": coco_rle(row, mask),
        "bbox": coco_box(mask),
        "score": mask.predicted_iou,
    }
