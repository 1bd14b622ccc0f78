"""The latest drawn scenes on the training's device, drawn by processes for as long as it is open.

Owns the processes and what is kept. Which scenes are there at a step depends on how fast they were drawn, so a training
with a pool does not repeat to the bit. Legend: N scenes, L levels, H W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.training.batches import Batch
from model.training.device_views import device_batch
from model.training.processes import background, drawn, opened
from model.training.scenes import SceneSource
from model.training.views import ViewSettings

AHEAD = 3
"""Scenes that a process has to draw, so that it never waits for the training."""


@dataclass(frozen=True)
class PoolSettings:
    """scenes  kept; each new one takes the place of the oldest
    least    scenes that must be there before the first batch
    workers  processes that draw"""

    scenes: int
    least: int
    workers: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """rgb_NHW3 uint8; labels_NLHW int16, ids below MOST_IDS."""

    rgb_NHW3: Tensor
    labels_NLHW: Tensor

    @classmethod
    def like(cls, other: _Kept, count: int) -> _Kept:
        """Room for that many."""
        return cls(*(column.new_zeros(count, *column.shape[1:]) for column in (other.rgb_NHW3, other.labels_NLHW)))

    def put(self, place: int, other: _Kept) -> None:
        """In the places from there on."""
        end = place + len(other.rgb_NHW3)
        self.rgb_NHW3[place:end] = other.rgb_NHW3
        self.labels_NLHW[place:end] = other.labels_NLHW

    def some(self, chosen: Tensor | slice) -> _Kept:
        return _Kept(self.rgb_NHW3[chosen], self.labels_NLHW[chosen])


class ScenePool:
    """Use it in a `with`; its processes end with it."""

    def __init__(self, source: SceneSource, settings: PoolSettings, device: torch.device, *, first: int = 0) -> None:
        """first  the number of the first scene to draw"""
        self.taken_in = 0
        """Scenes so far."""
        self._settings, self._device = settings, device
        self._next, self._place = first, 0
        self._kept: _Kept | None = None
        self._processes = background(source, settings.workers)
        self._asked = [deque(self._ask(process) for _ in range(AHEAD)) for process in self._processes]

    def __enter__(self) -> ScenePool:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.shutdown(wait=False, cancel_futures=True)

    def _ask(self, process: ProcessPoolExecutor) -> Future[bytes]:
        self._next += 1
        return process.submit(drawn, self._next - 1)

    def batch(self, size: int, view: ViewSettings, rng: torch.Generator) -> Batch:
        """Views of `size` scenes at random, of all that are there. Waits only while there are too few."""
        self._take_in()
        while self._kept is None or self.taken_in < self._settings.least:
            wait([asked[0] for asked in self._asked], return_when=FIRST_COMPLETED)
            self._take_in()
        there = min(self.taken_in, self._settings.scenes)
        chosen_B = torch.randint(there, (size,), generator=rng, device=self._device)
        scenes = self._kept.some(chosen_B)
        return device_batch(scenes.rgb_NHW3, scenes.labels_NLHW, view, rng)

    def _take_in(self) -> None:
        """What has been drawn goes to the device in one copy, which the host does not wait for."""
        scenes: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
        for process, asked in zip(self._processes, self._asked, strict=True):
            while asked[0].done() and len(scenes) < self._settings.scenes:
                scenes.append(opened(asked.popleft().result()))
                asked.append(self._ask(process))
        if not scenes:
            return
        new = _Kept(*(self._moved(column) for column in zip(*scenes, strict=True)))
        self._kept = self._kept or _Kept.like(new, self._settings.scenes)
        before_end = self._settings.scenes - self._place
        self._kept.put(self._place, new.some(slice(0, before_end)))
        self._kept.put(0, new.some(slice(before_end, None)))
        self._place = (self._place + len(scenes)) % self._settings.scenes
        self.taken_in += len(scenes)

    def _moved(self, arrays: Sequence[npt.NDArray[Any]]) -> Tensor:
        """Stacked, and on the device."""
        like = torch.from_numpy(arrays[0].copy())
        pinned = self._device.type == "cuda"
        stacked = torch.empty((len(arrays), *like.shape), dtype=like.dtype, pin_memory=pinned)
        np.stack(arrays, out=stacked.numpy())
        return stacked.to(self._device, non_blocking=True)
