"""Rows of output as the generator and the bad inputs would make them, and tars of what one likes."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipeline.records import ImageRow, Mask, Member, Status
from pipeline.storage.indexing import ShardIndex
from pipeline.storage.members import read_members

METADATA = {"model": "tiny", "plan": "0a1b", "recipe": '{"points_per_side": 32}', "note": "é"}


def a_mask(index: int, *, height: int = 40, width: int = 60) -> Mask:
    """A rectangle, as the generator would describe it; every field different from mask to mask."""
    x0, y0, w, h = 2 + index, 3, 10 + index, 20
    mask_HW = np.zeros((height, width), np.uint8, order="F")
    mask_HW[y0 : y0 + h, x0 : x0 + w] = 1
    counts: Any = coco.encode(mask_HW)["counts"]
    return Mask(
        counts=counts.decode(),
        bbox_xywh=(float(x0), float(y0), float(w - 1), float(h - 1)),
        area=int(mask_HW.sum()),
        predicted_iou=1.0 + index / 7,
        stability_score=1.0 - index / 70,
        point_xy=(x0 + 0.9375, y0 + 1 / 3),
        crop_box_xywh=(0.0, 0.0, float(width), float(height)),
        crop_layer=index % 3,
        multimask_index=(index + 1) % 3,
    )


def a_row(image_id: int = 5, mask_count: int = 3, **changes: Any) -> ImageRow:
    row = ImageRow(
        image_id=image_id,
        file_name=f"sa_{image_id}.jpg",
        source=f"s3://bucket/sa_000.tar#{image_id}",
        status=Status.OK,
        width=60,
        height=40,
        exif_orientation=6,
        sha256="ab" * 32,
        masks=tuple(a_mask(index) for index in range(mask_count)),
        first_annotation_id=image_id % 2**32 * 2**20 + 1 if mask_count else 0,
    )
    return replace(row, **changes)


def some_rows() -> list[ImageRow]:
    return [
        a_row(5),
        a_row(6, 0),
        ImageRow(7, "bad\n<b>.jpg", "/data/bad.jpg", Status.UNREADABLE, "image file is truncated"),
        ImageRow(8, "big.jpg", "/data/big.jpg", Status.TOO_LARGE, "…", width=99_999, height=99_999, sha256="cd" * 32),
        a_row(2**32 + 1, 1, file_name="folder/é.png", exif_orientation=1),
    ]


def many_rows() -> list[ImageRow]:
    """More than two row groups of Parquet."""
    return [a_row(image_id, image_id % 4) for image_id in range(300)]


def tar_of(*members: tuple[str | tarfile.TarInfo, bytes], layout: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=layout) as tar:
        for named, data in members:
            info = tarfile.TarInfo(named) if isinstance(named, str) else named
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def members_of(index: ShardIndex) -> tuple[Member, ...]:
    return tuple(member for piece in index.pieces for member in read_members(piece.data))
