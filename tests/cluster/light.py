"""Workers that do real chunks in real processes of Ray, and start in a second: no model, no torch, nothing compiled.

To the driver they are like the ones of worker.py: same calls, same journal, and the part is the commit. Importable by
Ray's processes as well as by tests, so it holds no fixtures.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, DeviceError
from pipeline.masks.points import EVERYTHING, Prompts
from pipeline.plan.plan import Plan
from pipeline.records import Attempt, ChunkReport, Funnel, ImageMasks, Mask
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.stopwatch import Stopwatch
from tests.fakes_run import without_pandas

Image_HW3 = npt.NDArray[np.uint8]
Meet = Callable[[Image_HW3], None]
"""What an image does beside having its one mask: take time, raise, end the process."""


Start = Callable[[], None]
"""What loading the model does."""


@dataclass(frozen=True)
class LightSpec:
    """As `WorkerSpec`. `start` is called once and `meet` for every image, in the worker."""

    out: str
    plan: Plan
    meet: Meet
    start: Start


class LightWorker:
    def __init__(self, spec: LightSpec) -> None:
        self._spec = spec

    def node(self) -> str:
        import ray

        return ray.get_runtime_context().get_node_id()

    def start(self) -> None:
        without_pandas()
        self._spec.start()

    def run(self, attempt: Attempt, journal: Any) -> ChunkReport:
        from pipeline.cluster.journal import mark_in

        spec = self._spec
        at_work.add(attempt.key)
        context = WorkerContext(
            out=spec.out, plan=spec.plan, store=connect(StoreSettings()), generate=partial(one_mask, meet=spec.meet)
        )
        try:
            return process_chunk(attempt, context, mark=partial(mark_in, journal, attempt.key))
        finally:
            at_work.remove(attempt.key)


at_work: set[str] = set()
"""Attempts of this process."""


def light_actor(*, num_cpus: float, num_gpus: float, chunks_at_once: int) -> Any:
    """As `worker_actor`."""
    import ray

    remote: Any = ray.remote
    return remote(num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0, max_concurrency=chunks_at_once)(LightWorker)


def nothing() -> None:
    """A model that is there."""


def on_fire() -> None:
    """A machine that is broken."""
    raise RuntimeError("the accelerator is on fire")


def refuse() -> None:
    """A checkpoint that is another model's."""
    raise ConfigError("the checkpoint is not a vit_b: 3 keys differ")


def at_once(_image_HW3: Image_HW3) -> None:
    """An image that only has its mask."""


def one_at_a_time(*, num_cpus: float, num_gpus: float, chunks_at_once: int) -> Any:
    """As `light_actor`, but a second chunk has not begun while the first is at work."""
    del chunks_at_once
    return light_actor(num_cpus=num_cpus, num_gpus=num_gpus, chunks_at_once=1)


def one_mask(image_HW3: Image_HW3, watch: Stopwatch, _prompts: Prompts = EVERYTHING, /, *, meet: Meet) -> ImageMasks:
    """A mask that only this image has."""
    meet(image_HW3)
    mask = Mask(
        counts="0",
        bbox_xywh=(0.0, 0.0, 0.0, 0.0),
        area=int(image_HW3.sum()),
        predicted_iou=float(image_HW3.mean()),
        stability_score=1.0,
        point_xy=(0.0, 0.0),
        crop_box_xywh=(0.0, 0.0, 1.0, 1.0),
        crop_layer=0,
        multimask_index=0,
    )
    return ImageMasks((mask,), Funnel(candidates=1, kept=1))


@dataclass(frozen=True)
class Deadly:
    """An image kills its process, or keeps it for ever, by the colour of its first pixel."""

    kills: tuple[int, int, int]
    hangs: tuple[int, int, int]

    def __call__(self, image_HW3: Image_HW3) -> None:
        first_rgb = tuple(int(value) for value in image_HW3[0, 0])
        if first_rgb == self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if first_rgb == self.hangs:
            time.sleep(1e6)


@dataclass(frozen=True)
class Shy:
    """Images whose first pixel has this colour watch for company; if they are to, they fail once before.

    The others take turns at taking little time and more, so that one of them is at work when another ends.
    """

    rgb: tuple[int, int, int]
    folder: Path
    fail_first: bool = True

    def __call__(self, image_HW3: Image_HW3) -> None:
        if tuple(int(value) for value in image_HW3[0, 0]) != self.rgb:
            met.append(1)
            time.sleep(0.7 if len(met) % 2 else 0.3)
            return
        if self.fail_first and is_new(self.folder / f"{image_HW3.sum()}"):
            raise RuntimeError("shy")
        (self.folder / "watched").touch()
        ends = time.monotonic() + 0.5
        while time.monotonic() < ends:
            if len(at_work) > 1:
                (self.folder / "company").touch()
            time.sleep(0.01)


def is_new(path: Path) -> bool:
    """Make a file; False if it was there."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True)
class Slow:
    """Every image takes a while; a file in `folder` tells that one has begun."""

    seconds: float
    folder: Path

    @property
    def begun(self) -> bool:
        return any(self.folder.iterdir())

    def __call__(self, _image_HW3: Image_HW3) -> None:
        (self.folder / "begun").touch()
        time.sleep(self.seconds)


@dataclass(frozen=True)
class Held:
    """The `number`-th image of a process waits until there is a file in `folder`."""

    number: int
    folder: Path

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def __call__(self, _image_HW3: Image_HW3) -> None:
        met.append(1)
        while len(met) == self.number and not (self.folder / "go").exists():
            time.sleep(0.02)


met: list[int] = []
"""Images of this process so far."""


@dataclass(frozen=True)
class Stumbling:
    """The first image over all processes fails with an exception, and the first after five good ones of a process with
    what a broken device raises; a process that has raised the latter fails for ever."""

    folder: Path
    said: str

    def __call__(self, _image_HW3: Image_HW3) -> None:
        if is_new(self.folder / "stumbled"):
            raise RuntimeError("stumbled")
        if poisoned:
            time.sleep(5)  # the driver, which has been told, ends the process meanwhile
            raise DeviceError("AcceleratorError: CUDA error: the context is gone")
        met.append(1)
        # By then the worker's other chunk has said what the exception was.
        if len(met) > 5 and is_new(self.folder / "poisoned"):
            poisoned.append(True)
            raise DeviceError(self.said)


poisoned: list[bool] = []
"""Whether this process has a broken device."""
