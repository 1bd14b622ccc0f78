"""Masks as COCO compressed run lengths: encode, decode, measure, move to a larger frame.

Owns the format (column-major runs, starting with background); pycocotools does the packing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask. `hw` is the frame it fills; `counts` the compressed runs as COCO's JSON has them."""

    hw: tuple[int, int]
    counts: str

    def as_coco(self) -> dict[str, Any]:
        """The dict that pycocotools takes."""
        return {"size": list(self.hw), "counts": self.counts.encode("ascii")}


def encode_mask(mask_HW: npt.NDArray[np.bool_]) -> Rle:
    """Any mask of at least one pixel; empty and full ones included."""
    packed: Any = coco_mask.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    height, width = mask_HW.shape
    return Rle(hw=(height, width), counts=packed["counts"].decode("ascii"))


def decode_mask(rle: Rle) -> npt.NDArray[np.bool_]:
    """(H, W) bool, the exact inverse of `encode_mask`."""
    pixels_HW: Any = coco_mask.decode(rle.as_coco())  # pyright: ignore[reportArgumentType] # stub wants its own dict
    return pixels_HW.astype(np.bool_)


def rle_area(rle: Rle) -> int:
    """Pixels inside the mask."""
    return int(coco_mask.area(rle.as_coco()))  # pyright: ignore[reportArgumentType] # stub wants its own dict


def paste_rle(rle: Rle, *, at_xy: tuple[int, int], frame_hw: tuple[int, int]) -> Rle:
    """The same mask in a larger frame, its top left at `at_xy`; background elsewhere."""
    if rle.hw == frame_hw:
        return rle
    x0, y0 = at_xy
    height, width = rle.hw
    # Column-major like the runs, so that decoding, pasting and encoding all walk memory in order.
    frame_HW = np.zeros(frame_hw, dtype=np.bool_, order="F")
    frame_HW[y0 : y0 + height, x0 : x0 + width] = decode_mask(rle)
    return encode_mask(frame_HW)
