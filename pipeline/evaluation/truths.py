"""The ground truth of one image: masks as COCO's packed run lengths.

Owns what counts as a truth. Does not know where masks come from.
Legend: H W pixels, L levels of labels, T truths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ContractError
from pipeline.masks.rle import Rle, pack_pixels, unpacked

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truths:
    """What is to be found in an image, whatever it is (no classes). No mask twice, none empty.

    counts_T  COCO's packed run lengths
    area_T    int64, pixels
    """

    hw: tuple[int, int]
    counts_T: tuple[str, ...]
    area_T: npt.NDArray[np.int64]

    @classmethod
    def of(cls, counts: Sequence[str], hw: tuple[int, int]) -> Truths:
        """Equal masks become one truth: a part that covers its whole is one thing to find, not two.

        raises  ContractError if a mask does not fill the frame
        """
        areas: dict[str, int] = {}
        for packed in counts:
            runs = unpacked(packed)
            if runs.sum() != hw[0] * hw[1]:
                raise ContractError(f"a mask of {runs.sum()} pixels for an image of {hw[0] * hw[1]}")
            areas[packed] = Rle(hw, runs).area
        kept = {packed: area for packed, area in areas.items() if area}
        return cls(hw, tuple(kept), np.array(list(kept.values()), np.int64))

    @classmethod
    def of_labels(cls, labels_LHW: npt.NDArray[np.integer[Any]]) -> Truths:
        """Every id of every level is a thing; 0 is nothing."""
        hw = labels_LHW.shape[1], labels_LHW.shape[2]
        counts = [pack_pixels(level_HW == own) for level_HW in labels_LHW for own in np.unique(level_HW) if own]
        return cls.of(counts, hw)

    def at_least(self, pixels: int) -> Truths:
        """Those of that area or more."""
        large_T = self.area_T >= pixels
        counts_T = tuple(counts for counts, large in zip(self.counts_T, large_T, strict=True) if large)
        return Truths(self.hw, counts_T, self.area_T[large_T])

    def __len__(self) -> int:
        return len(self.counts_T)
