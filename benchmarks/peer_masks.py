"""Masks as any peer can state them, for `pipeline.masks.agreement`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

_coco: Any = coco_mask


@dataclass(frozen=True, slots=True)
class PeerMask:
    """One mask. `counts` is COCO's compressed RLE; `stability_score` is None where the peer does not tell it."""

    counts: str
    predicted_iou: float
    stability_score: float | None = None


def rle_counts(mask_HW: npt.NDArray[Any]) -> str:
    """COCO's compressed RLE of a mask, nonzero inside."""
    packed: dict[str, bytes] = _coco.encode(np.asfortranarray(mask_HW != 0, dtype=np.uint8))
    return packed["counts"].decode("ascii")
