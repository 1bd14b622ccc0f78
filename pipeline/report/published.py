"""What SA-1B's authors published of it, for a report to show beside its own numbers.

Only numbers that a report has too. "The paper" is arXiv:2304.02643.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A number, or the range of several if `low` and `high` differ."""

    what: str
    low: float
    high: float
    source: str


IMAGES = Published("images", 11_000_000, 11_000_000, "the paper, section 5")
MASKS = Published("masks", 1_100_000_000, 1_100_000_000, "the paper, section 5")
MASKS_PER_IMAGE = Published("masks per image", 100, 100, "the paper, section 5: 1.1 billion masks of 11 million images")
MASKS_PER_IMAGE_OF_GROUPS = Published(
    "masks per image of regions and income groups", 94, 108, "the paper, table 1: the least and the most of its rows"
)
LEAST_PREDICTED_IOU = Published("least predicted IoU", 0.88, 0.88, "the paper, appendix B")
LEAST_STABILITY = Published("least stability score", 0.95, 0.95, "the paper, appendix B")
SA1B = (
    IMAGES,
    MASKS,
    MASKS_PER_IMAGE,
    MASKS_PER_IMAGE_OF_GROUPS,
    LEAST_PREDICTED_IOU,
    LEAST_STABILITY,
)
