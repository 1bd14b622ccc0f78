"""Datumaro's own JSON, one file for all images, which CVAT imports as well.

Owns what an item is. The layout and the keys are those that datumaro 1.13 writes (format version 1.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.export.names import file_extension
from pipeline.export.records import (
    ExportImage,
    File,
    Item,
    Joined,
    LeftOut,
    Section,
    index_file,
    index_item,
    json_bytes,
)
from pipeline.records import ImageRow, Mask

_IMAGE = 2
"""Its number for the kind of media."""
_HEAD: dict[str, Any] = {
    "dm_format_version": "1.0",
    "media_type": _IMAGE,
    "infos": {},
    "categories": {
        "label": {"labels": [{"name": "object", "parent": "", "attributes": []}], "label_groups": [], "attributes": []}
    },
}


class DatumaroItems:
    """See `Writer`. Images without masks are in it."""

    joined: tuple[Joined, ...] = (
        index_file(),
        Joined(
            "annotations/default.json",
            (Section("items", json_bytes(_HEAD)[:-1] + b',"items":[\n', b",\n"),),
            b"\n]}\n",
        ),
    )
    constant: tuple[File, ...] = ()
    named_by_stem = True
    is_one_file = False

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        for image in images:
            row, name = image.row, image.stem + file_extension(image.row.file_name, image.data)
            if image.data is not None:
                yield File(f"images/default/{name}", image.data)
            yield Item("items", json_bytes(_item(image.stem, name, row)))
            yield index_item(row, f"images/default/{name}")


def _item(stem: str, name: str, row: ImageRow) -> dict[str, Any]:
    return {
        "id": stem,
        "annotations": [
            _mask(row, annotation_id, mask) for annotation_id, mask in enumerate(row.masks, row.first_annotation_id)
        ],
        "image": {"path": name, "size": [row.height, row.width]},
    }


def _mask(row: ImageRow, annotation_id: int, mask: Mask) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "type": "mask",
        "attributes": {"predicted_iou": mask.predicted_iou, "stability_score": mask.stability_score},
        "group": 0,
        "label_id": 0,
        "rle": {"counts": mask.counts, "size": [row.height, row.width]},
        "z_order": 0,
    }
