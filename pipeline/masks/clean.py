"""Small flaws of a mask: holes to fill, islands to remove. Components are 8-connected, for both.

Owns one mask at a time; which masks are duplicates afterwards is not decided here.
Legend: H W pixels, L labels of components.
Source: arXiv:2304.02643 appendix B; order and ties as in segment_anything 1.0.
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
    _, areas_L = _components(mask_HW)
    return int(areas_L[1:].max(initial=0))


def _without_holes(mask_HW: Mask_HW, below_area: int) -> Mask_HW:
    """Any small component of the background is a hole, at the image's border too."""
    labels_HW, areas_L = _components(~mask_HW)
    hole_L = areas_L < below_area
    hole_L[0] = False
    return mask_HW | hole_L[labels_HW] if hole_L.any() else mask_HW


def _without_islands(mask_HW: Mask_HW, below_area: int) -> Mask_HW:
    """If all components are small, the (first) largest stays."""
    labels_HW, areas_L = _components(mask_HW)
    stays_L = areas_L >= below_area
    stays_L[0] = False
    if stays_L[1:].all():
        return mask_HW
    if not stays_L.any():
        stays_L[1 + areas_L[1:].argmax()] = True
    return stays_L[labels_HW]


def _components(mask_HW: Mask_HW) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(H, W) label of each pixel, and the area of each label; label 0 is what lies outside the mask."""
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    return labels_HW.astype(np.int32, copy=False), stats[:, cv2.CC_STAT_AREA].astype(np.int32, copy=False)
