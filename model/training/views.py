"""Scenes -> photographic views of them with points, and the truths that each point may mean, as arrays.

Owns cropping, the choice of points, and what is at which place of which batch. Deterministic by (seed, batch number,
place in the batch, input side). Imports no torch, so that the processes that make views start in a moment.
Legend: B images, K points of an image, L levels, S input side, h w low-resolution cells, N things.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from model.training.photographs import photograph
from model.training.processes import owned
from model.training.scenes import LEVELS, Scene, SceneSource

SCENE_GROUPS = 4
"""Batches of scenes that are taken in turn, so that neighbouring steps see different scenes."""

Columns = tuple[npt.NDArray[Any], ...]
"""Those of `batches.Batch`, in its order."""


@dataclass(frozen=True)
class ViewSettings:
    """What a view looks like."""

    input_side: int
    mask_side: int
    points: int
    min_cells: int
    whole_share: float = 0.0
    """Of the views, those that show the whole scene; the others are crops."""
    stretched: bool = False
    """Whether both sides of a crop fill the square, whatever its aspect; else the longer one does."""


@dataclass(frozen=True, slots=True)
class View:
    """rgb_hw3 uint8 with its longer side, or both, at the input side; labels_Lhw on the low-resolution square."""

    rgb_hw3: npt.NDArray[np.uint8]
    labels_Lhw: npt.NDArray[np.uint16]


@dataclass
class TrainingViews:
    """The images of batches, by number and place, without end. Keeps the latest scenes: each is seen several times."""

    seed: int
    view: ViewSettings
    batch: int
    views_per_scene: int
    scenes: SceneSource
    _kept: OrderedDict[int, Scene] = field(default_factory=OrderedDict, repr=False)

    def make_one(self, number: int, place: int) -> Columns:
        """The image at this place of the batch with this number; the same on every call."""
        block, within = divmod(number, SCENE_GROUPS * self.views_per_scene)
        index = (block * SCENE_GROUPS + within % SCENE_GROUPS) * self.batch + place
        rng = np.random.default_rng([self.seed, number, place, self.view.input_side])
        return columns_of([self._scene(index)], self.view, rng)

    def _scene(self, index: int) -> Scene:
        if index not in self._kept:
            self._kept[index] = self.scenes.scene(index)
        while len(self._kept) > SCENE_GROUPS * self.batch:
            self._kept.popitem(last=False)
        return self._kept[index]


def places(number: int, first: int, step: int) -> list[Columns]:
    """In a process that owns `TrainingViews`: every `step`-th place of the batch with this number."""
    views: TrainingViews = owned()
    return [views.make_one(number, place) for place in range(first, views.batch, step)]


def joined(parts: Sequence[Columns]) -> Columns:
    """The images of all of them, in order."""
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def columns_of(scenes: list[Scene], settings: ViewSettings, rng: np.random.Generator) -> Columns:
    """One view of each scene, with points."""
    views = [make_view(scene, settings, rng) for scene in scenes]
    side = settings.input_side
    images = np.zeros((len(views), side, side, 3), np.uint8)
    for image, view in zip(images, views, strict=True):
        image[: view.rgb_hw3.shape[0], : view.rgb_hw3.shape[1]] = view.rgb_hw3
    prompts = [choose_points(view.labels_Lhw, settings, rng) for view in views]
    points, truths, valid = (np.stack(column) for column in zip(*prompts, strict=True))
    sizes = np.array([view.rgb_hw3.shape[:2] for view in views], np.int64)
    labels = np.stack([view.labels_Lhw for view in views]).astype(np.int32)
    return images.transpose(0, 3, 1, 2).copy(), sizes, points, truths, valid, labels


def make_view(scene: Scene, settings: ViewSettings, rng: np.random.Generator) -> View:
    """The whole scene or a crop, scaled to the input side, flipped at times, with a camera's flaws."""
    height, width = scene.rgb_HW3.shape[:2]
    ch, cw = (height, width) if rng.random() < settings.whole_share else _crop_hw(min(height, width), rng)
    y0, x0 = int(rng.integers(0, height - ch + 1)), int(rng.integers(0, width - cw + 1))
    side = settings.input_side
    h, w = (side, side) if settings.stretched else (round(each * side / max(ch, cw)) for each in (ch, cw))
    rgb_hw3 = _resized(scene.rgb_HW3[y0 : y0 + ch, x0 : x0 + cw], (h, w))
    # Truth is read off at the centres of the low-resolution cells, so it has no bias to either side of an edge.
    cell = side / settings.mask_side
    centres = (np.arange(settings.mask_side) + 0.5) * cell
    rows = (y0 + centres[centres < h] * ch / h).astype(int)
    columns = (x0 + centres[centres < w] * cw / w).astype(int)
    labels_Lhw = np.zeros((LEVELS, settings.mask_side, settings.mask_side), np.uint16)
    window = scene.labels_3HW[:, rows[:, None], columns[None, :]]
    if rng.random() < 0.5:
        rgb_hw3, window = rgb_hw3[:, ::-1], window[:, :, ::-1]
    labels_Lhw[:, : len(rows), : len(columns)] = window
    return View(photograph(rgb_hw3, rng), labels_Lhw)


def _resized(rgb_HW3: npt.NDArray[np.uint8], hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """First what shrinks, by averages, then what grows: OpenCV averages only where both sides shrink."""
    (H, W), (h, w) = rgb_HW3.shape[:2], hw
    for height, width in {(min(h, H), min(w, W)): None, hw: None}:
        is_smaller = height < rgb_HW3.shape[0] or width < rgb_HW3.shape[1]
        kind = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
        rgb_HW3 = np.asarray(cv2.resize(rgb_HW3, (width, height), interpolation=kind), np.uint8)
    return rgb_HW3


def _crop_hw(side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Of a crop in a scene whose shorter side is `side`: as long as that or down to a third, as a zoomed crop's is."""
    long = np.exp(rng.uniform(np.log(0.33), 0)) * side
    short = long * (rng.uniform(0.55, 0.85) if rng.random() < 0.6 else 1.0)
    return (round(short), round(long)) if rng.random() < 0.7 else (round(long), round(short))


def choose_points(
    labels_Lhw: npt.NDArray[np.uint16], settings: ViewSettings, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Points and what each may mean: (K, 2) in input pixels, (K, L, h, w), (K, L).

    Half of the points favour every thing alike, so that small ones are asked for; half every cell, as a grid does.
    A view without any thing that is large enough has points with nothing valid.
    """
    areas = np.bincount(labels_Lhw.ravel(), minlength=1)
    large = areas >= settings.min_cells
    large[0] = False
    valid_Lhw = large[labels_Lhw]
    ids = np.flatnonzero(large)
    anywhere = np.flatnonzero(valid_Lhw.any(axis=0))
    w = labels_Lhw.shape[2]
    cells = np.zeros(settings.points, np.int64)
    for k in range(settings.points if len(ids) else 0):
        inside = np.flatnonzero((labels_Lhw == rng.choice(ids)).any(axis=0)) if k % 2 else anywhere
        cells[k] = rng.choice(inside)
    rows, columns = np.divmod(cells, w)
    chosen_KL = labels_Lhw[:, rows, columns].T
    valid_KL = large[chosen_KL]
    truths_KLhw = (labels_Lhw[None] == chosen_KL[:, :, None, None]) & valid_KL[:, :, None, None]
    cell = settings.input_side / settings.mask_side
    jitter = rng.uniform(0, 1, (settings.points, 2))
    points_K2 = (np.stack([columns, rows], axis=1) + jitter) * cell - 0.5
    return points_K2.astype(np.float32), truths_KLhw, valid_KL
