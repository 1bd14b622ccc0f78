"""A sample of an output whose images and masks are made by hand, so that every number on the page is known."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.look.sample import Sample, Sampled
from pipeline.records import ImageRow, Mask, Status
from pipeline.storage.member_bytes import ByteRange
from pipeline.storage.store import Store
from tests.fakes_run import as_png, write_folder
from tests.masks.oracle import encode_mask
from tests.report.reports import HOSTILE
from tests.small_runs import context_of, small_run

WIDTH, HEIGHT = 80, 60
Box = tuple[int, int, int, int]


def rectangle(box_xywh: Box, iou: float, stability: float, layer: int = 0) -> Mask:
    """A mask of w x h pixels, with its prompt in the middle."""
    x, y, w, h = box_xywh
    mask_HW = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask_HW[y : y + h, x : x + w] = True
    return Mask(
        counts=encode_mask(mask_HW).packed(),
        bbox_xywh=(float(x), float(y), float(w - 1), float(h - 1)),
        area=w * h,
        predicted_iou=iou,
        stability_score=stability,
        point_xy=(x + w / 2, y + h / 2),
        crop_box_xywh=(0.0, 0.0, float(WIDTH), float(HEIGHT)),
        crop_layer=layer,
        multimask_index=1,
    )


@cache
def masks_by_name() -> dict[str, tuple[Mask, ...]]:
    """Eleven masks. In the order of the run; every order of the gallery is another one."""
    return {
        "a.png": (
            rectangle((5, 5, 10, 10), 0.60, 0.80, 1),
            rectangle((0, 0, 40, 40), 0.90, 0.95),
            rectangle((20, 20, 10, 10), 0.70, 0.99, 2),
        ),
        HOSTILE: (rectangle((0, 0, 20, 20), 0.50, 0.85), rectangle((10, 10, 20, 20), 0.80, 0.90)),
        "c.png": (rectangle((0, 0, 60, 30), 1.02, 0.97),),
        "gone.png": tuple(rectangle((0, 0, 50, 50), 0.40 + 0.01 * number, 0.75, 1) for number in range(5)),
    }


def made_sample(folder: Path, store: Store) -> Sample:
    """The image gone.png has been deleted since the run. Image ids count from 10."""
    images = {name: _png(number) for number, name in enumerate(masks_by_name())}
    write_folder(folder / "images", images)
    plan = context_of(small_run(folder / "images", folder / "out"), store).plan
    (folder / "images" / "gone.png").unlink()
    sample = Sample(str(folder / "out"), plan, seed=0, committed=2, read=2)
    for number, (name, masks) in enumerate(masks_by_name().items()):
        path = str(folder / "images" / name)
        row = ImageRow(
            image_id=10 + number,
            file_name=name,
            source=path,
            status=Status.OK,
            width=WIDTH,
            height=HEIGHT,
            sha256=hashlib.sha256(images[name]).hexdigest(),
            masks=masks,
        )
        sample.images.append(Sampled(row, ByteRange(path)))
    return sample


def _png(seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return as_png(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
