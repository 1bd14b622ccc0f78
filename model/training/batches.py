"""Scenes -> batches: photographic views of scenes, points on them, and the truths that each point may mean.

Owns cropping, the choice of points, and the processes in which batches are made. Deterministic by (seed, batch number,
place in the batch, input side), whatever the number of processes.
Legend: B images, K points of an image, L levels, S input side, h w low-resolution cells, N things.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.training.photographs import photograph
from model.training.processes import background, owned
from model.training.scenes import LEVELS, Scene, SceneSource, held_out_scene

SCENE_GROUPS = 4
"""Batches of scenes that are taken in turn, so that neighbouring steps see different scenes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """images_B3SS uint8, padded at the bottom and right.

    sizes_B2       int64, (h, w): the pixels before padding
    points_BK2     float32, (x, y) in pixels of the input square
    truths_BKLhw   bool, the thing under the point on each level
    valid_BKL      bool, whether that level has one there that is large enough
    labels_BLhw    int32, the view's ids per level, 0 for nothing
    """

    images_B3SS: Tensor
    sizes_B2: Tensor
    points_BK2: Tensor
    truths_BKLhw: Tensor
    valid_BKL: Tensor
    labels_BLhw: Tensor

    def tensors(self) -> list[Tensor]:
        """The columns."""
        return [self.images_B3SS, self.sizes_B2, self.points_BK2, self.truths_BKLhw, self.valid_BKL, self.labels_BLhw]

    def to(self, device: torch.device) -> Batch:
        """The same batch there."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self.tensors()))


def split_batch(batch: Batch, count: int) -> list[Batch]:
    """At most `count` batches of about equally many images."""
    size = -(-len(batch.sizes_B2) // count)
    slices = [slice(first, first + size) for first in range(0, len(batch.sizes_B2), size)]
    return [Batch(*(tensor[part] for tensor in batch.tensors())) for part in slices]


def join_batches(parts: Sequence[Batch]) -> Batch:
    """The images of all of them, in order."""
    columns = zip(*(part.tensors() for part in parts), strict=True)
    return Batch(*(torch.cat(column) for column in columns))


@dataclass(frozen=True)
class ViewSettings:
    """What a view looks like."""

    input_side: int
    mask_side: int
    points: int
    min_cells: int
    whole_share: float = 0.0
    """Of the views, those that show the whole scene; the others are crops."""


@dataclass(frozen=True, slots=True)
class View:
    """rgb_hw3 uint8 with its longer side at the input side; labels_Lhw on the padded low-resolution square."""

    rgb_hw3: npt.NDArray[np.uint8]
    labels_Lhw: npt.NDArray[np.uint16]


@dataclass
class TrainingBatches:
    """Batches by number, without end. Keeps the scenes of the latest ones, for they are seen several times."""

    seed: int
    view: ViewSettings
    batch: int
    views_per_scene: int
    scenes: SceneSource
    _kept: OrderedDict[int, Scene] = field(default_factory=OrderedDict, repr=False)

    def make(self, number: int) -> Batch:
        """The batch with this number; the same on every call."""
        return join_batches([self.make_one(number, place) for place in range(self.batch)])

    def make_one(self, number: int, place: int) -> Batch:
        """The image at this place of the batch, as a batch of one."""
        block, within = divmod(number, SCENE_GROUPS * self.views_per_scene)
        index = (block * SCENE_GROUPS + within % SCENE_GROUPS) * self.batch + place
        rng = np.random.default_rng([self.seed, number, place, self.view.input_side])
        return make_batch([self._scene(index)], self.view, rng)

    def _scene(self, index: int) -> Scene:
        if index not in self._kept:
            self._kept[index] = self.scenes.scene(index)
        while len(self._kept) > SCENE_GROUPS * self.batch:
            self._kept.popitem(last=False)
        return self._kept[index]


def prefetched(source: TrainingBatches, *, start: int, workers: int = 1, depth: int = 8) -> Generator[Batch]:
    """The batches from number `start` on, made ahead in background processes, which end when this is closed.

    Each process makes the same places of every batch, and so has the scenes that it needs again.
    """
    with ExitStack() as stack:
        pools = [stack.enter_context(pool) for pool in background(source, workers)]

        def ask(number: int) -> list[Future[bytes]]:
            return [pool.submit(_places, number, worker, workers) for worker, pool in enumerate(pools)]

        ahead = deque(ask(number) for number in range(start, start + depth))
        try:
            for number in count(start + depth):
                # Plain bytes: torch would pass the tensors as shared files, which outlive a process that is killed.
                made: list[list[Batch]] = [pickle.loads(future.result()) for future in ahead.popleft()]
                yield join_batches([made[place % workers][place // workers] for place in range(source.batch)])
                ahead.append(ask(number))
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)


def _places(number: int, first: int, step: int) -> bytes:
    torch.set_num_threads(1)
    source: TrainingBatches = owned()
    return pickle.dumps([source.make_one(number, place) for place in range(first, source.batch, step)])


def held_out_batches(view: ViewSettings, *, images: int, batch: int, first: int = 0) -> Iterator[Batch]:
    """Fixed views of held-out scenes from number `first` on; nothing is trained on these."""
    for start in range(first, first + images, batch):
        scenes = [held_out_scene(i) for i in range(start, min(start + batch, first + images))]
        yield make_batch(scenes, view, np.random.default_rng([start, 77]))


def make_batch(scenes: list[Scene], settings: ViewSettings, rng: np.random.Generator) -> Batch:
    """One view of each scene, with points."""
    views = [make_view(scene, settings, rng) for scene in scenes]
    side = settings.input_side
    images = np.zeros((len(views), side, side, 3), np.uint8)
    for image, view in zip(images, views, strict=True):
        image[: view.rgb_hw3.shape[0], : view.rgb_hw3.shape[1]] = view.rgb_hw3
    prompts = [choose_points(view.labels_Lhw, settings, rng) for view in views]
    points, truths, valid = (np.stack(column) for column in zip(*prompts, strict=True))
    return Batch(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
        torch.tensor([view.rgb_hw3.shape[:2] for view in views]),
        torch.from_numpy(points),
        torch.from_numpy(truths),
        torch.from_numpy(valid),
        torch.from_numpy(np.stack([view.labels_Lhw for view in views]).astype(np.int32)),
    )


def make_view(scene: Scene, settings: ViewSettings, rng: np.random.Generator) -> View:
    """The whole scene or a crop, its longer side scaled to the input side, flipped at times, with a camera's flaws."""
    height, width = scene.rgb_HW3.shape[:2]
    ch, cw = (height, width) if rng.random() < settings.whole_share else _crop_hw(min(height, width), rng)
    y0, x0 = int(rng.integers(0, height - ch + 1)), int(rng.integers(0, width - cw + 1))
    scale = settings.input_side / max(ch, cw)
    h, w = round(ch * scale), round(cw * scale)
    smaller = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop_HW3 = scene.rgb_HW3[y0 : y0 + ch, x0 : x0 + cw]
    rgb_hw3 = np.asarray(cv2.resize(crop_HW3, (w, h), interpolation=smaller), np.uint8)
    # Truth is read off at the centres of the low-resolution cells, so it has no bias to either side of an edge.
    cell = settings.input_side / settings.mask_side
    centres = (np.arange(settings.mask_side) + 0.5) * cell
    rows = (y0 + centres[centres < h] * ch / h).astype(int)
    columns = (x0 + centres[centres < w] * cw / w).astype(int)
    labels_Lhw = np.zeros((LEVELS, settings.mask_side, settings.mask_side), np.uint16)
    window = scene.labels_3HW[:, rows[:, None], columns[None, :]]
    if rng.random() < 0.5:
        rgb_hw3, window = rgb_hw3[:, ::-1], window[:, :, ::-1]
    labels_Lhw[:, : len(rows), : len(columns)] = window
    return View(photograph(rgb_hw3, rng), labels_Lhw)


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
