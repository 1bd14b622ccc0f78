"""Numbers for images and masks: unique in the run, and a function of the plan alone.

Owns the id rules. Does not know files, stores or parts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.errors import ConfigError
from pipeline.masks.crops import points_per_side
from pipeline.settings import Recipe

OUTPUTS_PER_POINT = 3
"""Segment Anything predicts three masks for one point."""

MAX_ID = 2**53
"""Ids stay below this: JSON readers that keep numbers as float64 must not round them."""

MAX_SA_NUMBER = 2**52
"""`sa_<n>` names with a larger n are foreign names, so that numbers given after them stay below MAX_ID."""

_SA_NAME = re.compile(r"(?:^|/)sa_([0-9]{1,16})(?:\.[^./]*)?$")


def sa_number(key: str) -> int | None:
    """The n of a member called `sa_<n>.<any extension>`, in any folder; None for every other name."""
    found = _SA_NAME.search(key)
    if found is None:
        return None
    number = int(found.group(1))
    return number if number < MAX_SA_NUMBER else None


class ImageIds:
    """Image ids of one run.

    A name `sa_<n>` whose n occurs once in the run keeps n. Every other member gets base + ordinal, where base is
    one more than the largest n in the run (0 if there is none): a run of foreign names has ids equal to ordinals,
    and the two groups can never meet.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._seen = Counter(number for number in map(sa_number, keys) if number is not None)
        self._base = max(self._seen, default=-1) + 1

    def of(self, keys: Iterable[str], *, first_ordinal: int) -> Iterator[int]:
        """The ids of consecutive members whose first one has `first_ordinal`."""
        for ordinal, key in enumerate(keys, start=first_ordinal):
            number = sa_number(key)
            yield number if number is not None and self._seen[number] == 1 else self._base + ordinal


def candidates_per_image(recipe: Recipe) -> int:
    """Masks that the grid of every crop can propose, the most that an image can end with."""
    total = 0
    for layer in range(recipe.crop_n_layers + 1):
        total += 4**layer * points_per_side(recipe, layer) ** 2 * OUTPUTS_PER_POINT
    return total


def annotation_stride(recipe: Recipe, *, images: int) -> int:
    """Distance between the first annotation ids of neighbouring ordinals: the power of two that holds any image.

    raises  ConfigError if the run's ids would not fit below 2^53
    """
    stride = 1
    while stride < candidates_per_image(recipe):
        stride *= 2
    if images * stride >= MAX_ID:
        raise ConfigError(
            f"{images} images with up to {candidates_per_image(recipe)} masks each need annotation ids beyond 2^53; "
            "split the source into several runs, or lower recipe.points_per_side or recipe.crop_n_layers"
        )
    return stride
