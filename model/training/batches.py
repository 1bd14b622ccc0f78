"""Batches of views as tensors, by number, from this process or made ahead by others.

Owns the processes in which views are made. No batch depends on how many there are.
Legend: B images, K points of an image, L levels, S input side, h w low-resolution cells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from model.training.processes import background
from model.training.scenes import held_out_scene
from model.training.views import Columns, TrainingViews, ViewSettings, columns_of, joined, places


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


@dataclass(frozen=True)
class TrainingBatches:
    """Batches by number, without end."""

    views: TrainingViews

    def make(self, number: int) -> Batch:
        """The batch with this number; the same on every call."""
        return _as_batch(joined([self.views.make_one(number, place) for place in range(self.views.batch)]))


def prefetched(source: TrainingBatches, *, start: int, workers: int = 1, depth: int = 8) -> Generator[Batch]:
    """The batches from number `start` on, made ahead in background processes, which end when this is closed.

    Each process makes the same places of every batch, and so has the scenes that it needs again.
    """
    with ExitStack() as stack:
        pools = [stack.enter_context(pool) for pool in background(source.views, workers)]

        def ask(number: int) -> list[Future[list[Columns]]]:
            return [pool.submit(places, number, worker, workers) for worker, pool in enumerate(pools)]

        ahead = deque(ask(number) for number in range(start, start + depth))
        try:
            for number in count(start + depth):
                made = [future.result() for future in ahead.popleft()]
                size = source.views.batch
                yield _as_batch(joined([made[place % workers][place // workers] for place in range(size)]))
                ahead.append(ask(number))
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)


def held_out_batches(view: ViewSettings, *, images: int, batch: int, first: int = 0) -> Iterator[Batch]:
    """Fixed views of held-out scenes from number `first` on; nothing is trained on these."""
    for start in range(first, first + images, batch):
        scenes = [held_out_scene(i) for i in range(start, min(start + batch, first + images))]
        yield _as_batch(columns_of(scenes, view, np.random.default_rng([start, 77])))


def _as_batch(columns: Columns) -> Batch:
    return Batch(*map(torch.from_numpy, columns))
