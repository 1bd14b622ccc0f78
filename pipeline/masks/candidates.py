"""Candidates between the model and the result, as typed columns.

Legend: N candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import torch

from pipeline.errors import ContractError

Mask = TypeVar("Mask")
Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Candidates(Generic[Mask]):
    """N masks with all that is known of them, on the CPU.

    box_xyxy_N4       int64, image frame, first and last pixel inside the mask; all zero plus the crop's origin if empty
    predicted_iou_N   float32, never clipped
    stability_N       float32 in [0, 1]
    point_xy_N2       float64, image frame
    mask_index_N      int64, which of the model's outputs
    crop_xyxy_N4      int64, image frame, right and bottom exclusive
    layer_N           int64, of the crop
    masks             low-resolution logits while one crop is searched; then run lengths, in the crop's frame until
                      they are pasted into the image's
    """

    box_xyxy_N4: torch.Tensor
    predicted_iou_N: torch.Tensor
    stability_N: torch.Tensor
    point_xy_N2: torch.Tensor
    mask_index_N: torch.Tensor
    crop_xyxy_N4: torch.Tensor
    layer_N: torch.Tensor
    masks: tuple[Mask, ...]

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ContractError(f"candidate columns disagree on their number: {lengths}")

    def __len__(self) -> int:
        return len(self.masks)

    def take(self, index_K: torch.Tensor) -> Candidates[Mask]:
        """Those at the given positions (int64), in that order."""
        chosen: list[int] = index_K.numpy().tolist()
        masks = tuple(self.masks[i] for i in chosen)
        return Candidates(*(column[index_K] for column in self._tensors()), masks=masks)

    def with_masks(self, masks: tuple[Other, ...]) -> Candidates[Other]:
        """The same candidates, their masks in another form."""
        return Candidates(*self._tensors(), masks=masks)

    @staticmethod
    def concatenate(parts: Sequence[Candidates[Other]]) -> Candidates[Other]:
        """All of the parts, in order; no parts give no candidates."""
        columns = zip(*(part._tensors() for part in [_no_candidates(), *parts]), strict=True)
        return Candidates(
            *(torch.cat(column) for column in columns), masks=tuple(mask for part in parts for mask in part.masks)
        )

    def _tensors(self) -> list[torch.Tensor]:
        return [getattr(self, field.name) for field in fields(self) if field.name != "masks"]


def _no_candidates() -> Candidates[object]:
    return Candidates(
        box_xyxy_N4=torch.zeros((0, 4), dtype=torch.int64),
        predicted_iou_N=torch.zeros(0, dtype=torch.float32),
        stability_N=torch.zeros(0, dtype=torch.float32),
        point_xy_N2=torch.zeros((0, 2), dtype=torch.float64),
        mask_index_N=torch.zeros(0, dtype=torch.int64),
        crop_xyxy_N4=torch.zeros((0, 4), dtype=torch.int64),
        layer_N=torch.zeros(0, dtype=torch.int64),
        masks=(),
    )
