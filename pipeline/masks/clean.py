"""Small flaws of a mask: holes to fill, islands to remove. Components are 8-connected, for both.

Owns one mask at a time; which masks are duplicates afterwards is not decided here.
Legend: H W pixels. Source: arXiv:2304.02643 appendix B; order and ties as in segment_anything 1.0.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Mask_HW = npt.NDArray[np.bool_]


def clean_mask(mask_HW: Mask_HW, *, below_area: int) -> Mask_HW:
    """Fill holes, then remove islands of fewer than `below_area` pixels; the very same array if there are none."""
    return _without_islands(_without_holes(mask_HW, below_area), below_area)


def largest_component_area(mask_HW: Mask_HW) -> int:
    """Pixels of the largest component; 0 for an empty mask."""
    _, areas = _components(mask_HW)
    return int(areas.max(initial=0))


def _without_holes(mask_HW: Mask_HW, below_area: int) -> Mask_HW:
    """Any small component of the background is a hole, at the image's border too."""
    labels_HW, areas = _components(~mask_HW)
    small = np.flatnonzero(areas < below_area) + 1
    return mask_HW | np.isin(labels_HW, small) if small.size else mask_HW


def _without_islands(mask_HW: Mask_HW, below_area: int) -> Mask_HW:
    """If all components are small, the (first) largest stays."""
    labels_HW, areas = _components(mask_HW)
    large = np.flatnonzero(areas >= below_area) + 1
    if large.size == areas.size:
        return mask_HW
    return np.isin(labels_HW, large if large.size else [int(areas.argmax()) + 1])


def _components(mask_HW: Mask_HW) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(H, W) labels, 0 outside the mask, and the areas of labels 1, 2, ..."""
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    return labels_HW.astype(np.int32, copy=False), stats[1:, cv2.CC_STAT_AREA].astype(np.int32, copy=False)
