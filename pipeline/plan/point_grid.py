"""A grid of points from a file: NumPy's .npy, .csv or .json, on disk or in a store.

Owns the forms of the file. Its points, and not its bytes, are what a run is known by: their hash stands in the plan.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, StorageError
from pipeline.masks.arrays import Points
from pipeline.masks.points import checked_grid
from pipeline.settings import Recipe
from pipeline.storage.kinds import extension
from pipeline.storage.store import Store
from pipeline.storage.uris import absolute

MAX_BYTES = 64 * 2**20
"""Of a file; a million points have 16 MB."""


@dataclass(frozen=True, eq=False)
class PointGrid:
    """(P, 2) xy in [0, 1] of a crop, for every crop of every layer."""

    points_xy_P2: Points

    @property
    def sha256(self) -> str:
        """Of the points, as little-endian float64, one after the other."""
        return hashlib.sha256(self.points_xy_P2.astype("<f8").tobytes()).hexdigest()

    def by_layer(self, recipe: Recipe) -> tuple[Points, ...]:
        return (self.points_xy_P2,) * (recipe.crop_n_layers + 1)


def read_point_grid(uri: str | None, store: Store) -> PointGrid | None:
    """The grid that `recipe.point_grid` names; None if it names none.

    raises  ConfigError if it cannot be read, or is none
    """
    if uri is None:
        return None
    name = f"recipe.point_grid={uri}"
    parse = _PARSERS.get(extension(uri))
    if parse is None:
        raise ConfigError(f"{name} must end in {', '.join(_PARSERS)}")
    try:
        data = store.read(absolute(uri), limit=MAX_BYTES)
    except StorageError as error:
        raise ConfigError(f"{name} cannot be read: {error}") from error
    try:
        points = parse(data)
    except (ValueError, EOFError, SyntaxError, RecursionError) as error:
        raise ConfigError(f"{name} cannot be read as {extension(uri)}: {error}") from error
    return PointGrid(checked_grid(points, name))


def _npy(data: bytes) -> Any:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _csv(data: bytes) -> list[list[float]]:
    """`x,y` a line; empty lines are passed over, and so is a first line of words."""
    lines = [line.split(",") for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    if lines and [word.strip().lower() for word in lines[0]] == ["x", "y"]:
        del lines[0]
    return [[float(word) for word in line] for line in lines]


def _json(data: bytes) -> Any:
    return json.loads(data)


_PARSERS: dict[str, Callable[[bytes], Any]] = {".npy": _npy, ".csv": _csv, ".json": _json}
