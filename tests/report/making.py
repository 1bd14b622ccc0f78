"""Outputs made of rows that a test draws, without images, and what their pixels say."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from pipeline.output.finish import count_parts
from pipeline.output.manifest import publish
from pipeline.plan.layout import part_uri, plan_uri
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard, plan_to_json
from pipeline.records import Funnel, ImageRow, Mask, Shard, Status
from pipeline.settings import Format, RunSettings, Settings
from pipeline.storage.parts import write_part
from pipeline.storage.store import Store
from tests.fakes_run import Notes

Mask_HW = npt.NDArray[np.bool_]
FUNNEL = Funnel(candidates=30, low_predicted_iou=10, low_stability=8, kept=12)
"""What each part says."""
VERSIONS = {"maskmill": "0.1.0", "numpy": "2.0"}


def drawn_rows(count: int, seed: int = 0) -> list[ImageRow]:
    """Images with 0 to 13 masks; every seventh failed, in one of three ways."""
    dice = np.random.default_rng(seed)
    return [_failed(number) if number % 7 == 6 else _drawn(number, dice) for number in range(count)]


def _failed(number: int) -> ImageRow:
    status, reason = (
        (Status.UNREADABLE, "the file is empty"),
        (Status.TOO_LARGE, f"{number + 9}000 x 9000 pixels are more than 1000"),
        (Status.MISSING, f"/in/im{number}.png does not exist"),
    )[number % 3]
    return ImageRow(number, f"im{number}.png", f"/in/im{number}.png", status, reason)


def drawn_masks(hw: tuple[int, int], count: int, dice: np.random.Generator) -> tuple[Mask, ...]:
    return tuple(_described(_shape(hw, dice), dice) for _ in range(count))


def _drawn(number: int, dice: np.random.Generator) -> ImageRow:
    height, width = map(int, dice.integers(30, 140, 2))
    masks = [_shape((height, width), dice) for _ in range(dice.integers(0, 13))]
    if number % 5 == 1 and masks:
        near = masks[0].copy()
        near[tuple(np.argwhere(near)[0])] = False
        masks += [near] if near.any() else []
    return ImageRow(
        image_id=number,
        file_name=f"im{number}.png",
        source=f"/in/im{number}.png",
        status=Status.OK,
        width=width,
        height=height,
        masks=tuple(_described(mask_HW, dice) for mask_HW in masks),
        first_annotation_id=number * 100 + 1,
    )


def _shape(hw: tuple[int, int], dice: np.random.Generator) -> Mask_HW:
    """An ellipse, a rectangle or a ring, which the frame may cut; never nothing."""
    canvas = np.zeros(hw, np.uint8)
    centre = int(dice.integers(0, hw[1])), int(dice.integers(0, hw[0]))
    axes = int(dice.integers(1, max(2, hw[1] // 2))), int(dice.integers(1, max(2, hw[0] // 2)))
    match int(dice.integers(3)):
        case 0:
            cv2.ellipse(canvas, centre, axes, float(dice.uniform(0, 180)), 0, 360, 1, -1)
        case 1:
            canvas[centre[1] : centre[1] + axes[1], centre[0] : centre[0] + axes[0]] = 1
        case _:
            cv2.ellipse(canvas, centre, axes, 0.0, 0, 360, 1, 2)
    canvas[centre[1], centre[0]] = 1
    return canvas.astype(np.bool_)


def _described(mask_HW: Mask_HW, dice: np.random.Generator) -> Mask:
    counts: Any = coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))["counts"]
    y, x = np.nonzero(mask_HW)
    layer = int(dice.integers(3))
    return Mask(
        counts=counts.decode(),
        bbox_xywh=(float(x.min()), float(y.min()), float(x.max() - x.min()), float(y.max() - y.min())),
        area=int(mask_HW.sum()),
        predicted_iou=float(np.float32(dice.uniform(0.84, 1.12))),
        stability_score=float(np.float32(dice.choice([0.95, 1.0, dice.uniform(0.89, 1)]))),
        point_xy=(float(x[0]), float(y[0])),
        crop_box_xywh=(0.0, 0.0, float(mask_HW.shape[1]), float(mask_HW.shape[0])),
        crop_layer=layer,
        multimask_index=int(dice.integers(3)),
    )


def pixels(row: ImageRow) -> list[Mask_HW]:
    """By pycocotools, whose call of numpy warns."""
    rles: Any = [{"size": [row.height, row.width], "counts": mask.counts.encode()} for mask in row.masks]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return [coco.decode(rle).astype(np.bool_) for rle in rles]


def plan_of(rows: Sequence[ImageRow], *, format: Format = Format.PARQUET, images_per_chunk: int = 4) -> Plan:
    settings = Settings(source="/in", format=format, run=RunSettings(images_per_chunk=images_per_chunk))
    shard = PlannedShard(Shard("in", "/in", "folder", len(rows), 0), 0, ("0" * 64,))
    return Plan(OutputSettings.of(settings, weights_sha256="ab" * 32), (shard,), versions=tuple(VERSIONS.items()))


def write_output(
    rows: Sequence[ImageRow],
    out: str,
    store: Store,
    *,
    format: Format = Format.PARQUET,
    chunks: int | None = None,
    versions: dict[str, str] = VERSIONS,
) -> Plan:
    """A finished output; of an unfinished one the first `chunks` parts, of which nothing is written down."""
    plan = plan_of(rows, format=format)
    store.put_if_absent(plan_uri(out), plan_to_json(plan))
    metadata = {
        "plan_sha256": plan.sha256,
        "funnel": json.dumps(asdict(FUNNEL)),
        "versions": json.dumps([versions]),
    }
    for chunk in list(plan.chunks())[:chunks]:
        data = write_part(rows[chunk.start : chunk.stop], format=format, metadata=metadata)
        store.put_if_absent(part_uri(out, plan, chunk), data)
    if chunks is None:
        publish(count_parts(plan, out=out, store=store, progress=Notes()), out=out, store=store)
    return plan
