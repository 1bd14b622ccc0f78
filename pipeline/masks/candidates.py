"""Candidates between the model and the result, as typed columns.

Legend: N candidates, K chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import ContractError
from pipeline.masks.arrays import Floats, Integers, Points

Form = TypeVar("Form")
OtherForm = TypeVar("OtherForm")


@dataclass(frozen=True, slots=True)
class Candidates(Generic[Form]):
    """N masks with all that is known of them.

    box_xyxy_N4       image frame, first and last pixel inside the mask; all zero plus the crop's origin if empty
    predicted_iou_N   never clipped
    stability_N       in [0, 1]
    point_xy_N2       image frame
    mask_index_N      which of the model's outputs
    crop_xyxy_N4      image frame, right and bottom exclusive
    layer_N           of the crop
    masks             low-resolution logits while one crop is searched; then run lengths, in the crop's frame until
                      they are pasted into the image's
    """

    box_xyxy_N4: Integers
    predicted_iou_N: Floats
    stability_N: Floats
    point_xy_N2: Points
    mask_index_N: Integers
    crop_xyxy_N4: Integers
    layer_N: Integers
    masks: tuple[Form, ...]

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ContractError(f"candidate columns disagree on their number: {lengths}")

    def __len__(self) -> int:
        return len(self.masks)

    def take(self, index_K: Integers) -> Candidates[Form]:
        """Those at the given positions, in that order."""
        chosen: list[int] = index_K.tolist()
        return Candidates(*(column[index_K] for column in self._columns()), masks=tuple(self.masks[i] for i in chosen))

    def with_masks(self, masks: tuple[OtherForm, ...]) -> Candidates[OtherForm]:
        """The same candidates, their masks in another form."""
        return Candidates(*self._columns(), masks=masks)

    @staticmethod
    def concatenate(parts: Sequence[Candidates[OtherForm]]) -> Candidates[OtherForm]:
        """All of the parts, in order; no parts give no candidates."""
        columns = zip(*(part._columns() for part in [_no_candidates(), *parts]), strict=True)
        return Candidates(
            *(np.concatenate(column) for column in columns), masks=tuple(mask for part in parts for mask in part.masks)
        )

    def _columns(self) -> list[npt.NDArray[Any]]:
        return [getattr(self, field.name) for field in fields(self) if field.name != "masks"]


def _no_candidates() -> Candidates[object]:
    return Candidates(
        box_xyxy_N4=np.zeros((0, 4), np.int64),
        predicted_iou_N=np.zeros(0, np.float32),
        stability_N=np.zeros(0, np.float32),
        point_xy_N2=np.zeros((0, 2), np.float64),
        mask_index_N=np.zeros(0, np.int64),
        crop_xyxy_N4=np.zeros((0, 4), np.int64),
        layer_N=np.zeros(0, np.int64),
        masks=(),
    )
