"""The masks of one image as Python users know them: the list of dicts of segment_anything 1.0, which a notebook shows.

Owns the keys, their order and their types, and the picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.masks.rle import Rle, mask_pixels, pack_pixels, unpacked
from pipeline.records import ImageMasks, Mask

Image_HW3 = npt.NDArray[np.uint8]


class OutputMode(StrEnum):
    """The form of `segmentation`."""

    BINARY_MASK = "binary_mask"
    """A bool array (H, W)."""
    UNCOMPRESSED_RLE = "uncompressed_rle"
    """{"size": [H, W], "counts": [runs, column by column, background first]}."""
    COCO_RLE = "coco_rle"
    """{"size": [H, W], "counts": the runs as COCO's string}, which pycocotools reads."""


class Masks(list[dict[str, Any]]):
    """One dict a mask, best first, with the keys

    segmentation     as `OutputMode` says
    area             int, pixels
    bbox             [x, y, w, h], ints; w and h are one pixel short, as in SA-1B
    predicted_iou    float, never clipped
    point_coords     [[x, y]], floats: the point that was prompted
    stability_score  float in [0, 1]
    crop_box         [x, y, w, h], ints

    A list like any other; a notebook shows it as the image with its masks. `image_HW3` is the image, which is not
    copied.
    """

    def __init__(self, masks: Iterable[dict[str, Any]], image_HW3: Image_HW3) -> None:
        super().__init__(masks)
        self.image_HW3 = image_HW3

    def __reduce__(self) -> tuple[type[Masks], tuple[list[dict[str, Any]], Image_HW3]]:
        return Masks, (list(self), self.image_HW3)

    def _repr_html_(self) -> str:
        # Imported here: who never looks needs neither the page's templates nor their dependency.
        from pipeline.look.html import data_uri

        height, width = self.image_HW3.shape[:2]
        said = f"{len(self):,} {'mask' if len(self) == 1 else 'masks'}, {width} x {height} pixels"
        picture = f'<img alt="{said}" style="max-width: 100%" src="{data_uri(self._repr_png_(), "image/png")}">'
        return f"<figure>{picture}<figcaption>{said}</figcaption></figure>"

    def _repr_png_(self) -> bytes:
        from pipeline.look.drawing import drawn_over, png, scaled

        hw = self.image_HW3.shape[0], self.image_HW3.shape[1]
        return png(drawn_over(scaled(self.image_HW3), [_drawn(mask) for mask in self], hw))


def released(result: ImageMasks, image_HW3: Image_HW3, mode: OutputMode) -> Masks:
    """The generator's result in the released form."""
    hw = image_HW3.shape[0], image_HW3.shape[1]
    return Masks([_released(mask, hw, mode) for mask in result.masks], image_HW3)


def _released(mask: Mask, hw: tuple[int, int], mode: OutputMode) -> dict[str, Any]:
    return {
        "segmentation": _segmentation(mask.counts, hw, mode),
        "area": mask.area,
        "bbox": [int(value) for value in mask.bbox_xywh],
        "predicted_iou": mask.predicted_iou,
        "point_coords": [list(mask.point_xy)],
        "stability_score": mask.stability_score,
        "crop_box": [int(value) for value in mask.crop_box_xywh],
    }


def _segmentation(counts: str, hw: tuple[int, int], mode: OutputMode) -> npt.NDArray[np.bool_] | dict[str, Any]:
    match mode:
        case OutputMode.BINARY_MASK:
            return mask_pixels(counts, hw)
        case OutputMode.UNCOMPRESSED_RLE:
            return {"size": list(hw), "counts": unpacked(counts).tolist()}
        case OutputMode.COCO_RLE:
            return {"size": list(hw), "counts": counts}


def _drawn(mask: dict[str, Any]) -> Mask:
    """What the picture needs of a mask, from whichever form it has, whoever changed it since."""
    segmentation = mask["segmentation"]
    if isinstance(segmentation, np.ndarray):
        mask_HW = np.asarray(segmentation, np.bool_)
        counts, area = pack_pixels(mask_HW), int(np.count_nonzero(mask_HW))
    else:
        counts, area = segmentation["counts"], int(mask["area"])
    if not isinstance(counts, str):
        hw = (segmentation["size"][0], segmentation["size"][1])
        counts = Rle(hw, np.asarray(counts, np.int64)).packed()
    nothing = (0.0, 0.0, 0.0, 0.0)
    return Mask(counts, nothing, area, 0.0, 0.0, (0.0, 0.0), nothing, 0, 0)
