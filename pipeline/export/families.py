"""Which masks of an image lie in which: wholes, parts and subparts, from their run lengths alone.

Owns the definition. A mask lies in another one if at least `export.inside` of its pixels are in it, and it has at most
SMALLER of the other's pixels, so that two masks of the same thing are neither's part. Its parent is the smallest such
mask, and its depth is the number of masks above it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import DamagedError
from pipeline.export.records import Family, Joined, Section, csv_line
from pipeline.masks.overlap import containers
from pipeline.records import ImageRow

SMALLER = 0.9
"""A tenth of the whole at least is something else."""
LEVELS = ("whole", "part", "subpart")
_COLUMNS = ("image_id", "id", "parent_id", "depth", "level")

HIERARCHY = Joined("hierarchy.csv", (Section("hierarchy.csv", csv_line(_COLUMNS), b""),), b"")


def families_of(row: ImageRow, *, inside: float) -> tuple[Family, ...]:
    """Of each mask, in order.

    raises  DamagedError if its run lengths cannot be read or do not fill the image
    """
    try:
        counts = [mask.counts for mask in row.masks]
        parent_N = containers(counts, (row.height, row.width), inside=inside, smaller=SMALLER).tolist()
    except ValueError as error:
        raise DamagedError(f"{row.file_name} is damaged: {error}; make verify tells more") from error
    return tuple(Family(parent, _depth(place, parent_N)) for place, parent in enumerate(parent_N))


def family_lines(row: ImageRow, families: Sequence[Family]) -> bytes:
    """Those of hierarchy.csv. A mask without a parent has an empty `parent_id`."""
    first = row.first_annotation_id
    return b"".join(
        csv_line(
            (
                row.image_id,
                first + place,
                first + family.parent if family.parent >= 0 else "",
                family.depth,
                LEVELS[min(family.depth, len(LEVELS) - 1)],
            )
        )
        for place, family in enumerate(families)
    )


def _depth(place: int, parent_N: Sequence[int]) -> int:
    depth = 0
    while parent_N[place] >= 0:
        place, depth = parent_N[place], depth + 1
    return depth
