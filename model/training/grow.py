"""Moving weights between input sides: position tables are resized, everything else stays."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def grow(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with its position tables resized to the shapes in `like` (same model, other input side).

    Positions are shares of the input square, as in the prompt encoder, so tables are stretched rather than cut.
    """
    return {key: _fit(value, like[key].shape) for key, value in state.items()}


def _fit(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    if value.shape == shape:
        return value
    if value.dim() == 4:  # (1, g, g, C)
        grid = value.permute(0, 3, 1, 2)
        return F.interpolate(grid, size=shape[1:3], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    return F.interpolate(value.T[None], size=shape[0], mode="linear", align_corners=False)[0].T  # (2g - 1, d)
