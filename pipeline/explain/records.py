"""What is told of the generator's steps; the border between watching and showing.

Frames: everything is in image pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pipeline.masks.crops import Crop
from pipeline.masks.rle import Rle
from pipeline.records import ImageMasks

Box = tuple[int, int, int, int]


class Role(StrEnum):
    """What a mask in a picture is, which decides its colour."""

    KEPT = "kept"
    REMOVED = "removed"
    ADDED = "added"
    """Pixels that a clean-up filled, or those between two cuts."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A mask in a picture. `filled` is False for an outline alone; `boxed` draws its box, by which duplicates are
    found."""

    rle: Rle
    role: Role
    filled: bool = True
    boxed: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One picture of a few masks, the first one lowest, and what is said of it."""

    shapes: tuple[Shape, ...]
    said: str
    point_xy: tuple[float, float] | None = None
    crop: Box | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """The values that a threshold cuts, of all that came to it.

    above_stays  a value above the threshold stays; False if it is removed
    at_least     a value on the threshold stays as well
    """

    name: str
    values_N: npt.NDArray[np.float64]
    threshold: float
    above_stays: bool = True
    at_least: bool = False

    def above(self, threshold: float) -> int:
        """How many values are above a threshold, or on it with `at_least`; compared in float32, as scores are."""
        values_N, cut = self.values_N.astype(np.float32), np.float32(threshold)
        return int((values_N >= cut).sum() if self.at_least else (values_N > cut).sum())


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the generator.

    settings  names and values of what decides it
    removed   how many candidates it took; `left` how many are left after it
    groups    pictures under a heading
    """

    key: str
    title: str
    what: str
    settings: tuple[tuple[str, str], ...]
    removed: int
    left: int
    scores: Scores | None = None
    groups: tuple[tuple[str, tuple[Example, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class PromptedCrop:
    """A crop and its points."""

    crop: Crop
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Explanation:
    """One image through every step. `result` is what a run writes of it."""

    crops: tuple[PromptedCrop, ...]
    steps: tuple[Step, ...]
    result: ImageMasks
    settings: tuple[tuple[str, str], ...] = field(default=())
    """Of crops and points."""
