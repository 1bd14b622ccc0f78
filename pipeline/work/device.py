"""One model, used by all chunks of a worker: one call at a time, each timed, and smaller ones when memory is short.

On a GPU a call is over when all of it is queued, so that the calls of two chunks follow each other without a gap.

Owns torch's process-wide settings and what the device's errors mean. Does not know files, chunks or which model it is.

Legend: H W pixels, P points.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import DeviceError
from pipeline.masks.generator import CROPS_PER_ENCODE, generate_masks
from pipeline.masks.points import EVERYTHING, Prompts
from pipeline.masks.segmenter import Encoded, Predictions, Segmenter, ask, placed
from pipeline.records import ImageMasks, Stage
from pipeline.settings import Recipe
from pipeline.work.stopwatch import Stopwatch

Image_HW3 = npt.NDArray[np.uint8]

MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In messages of torch.OutOfMemoryError and torch.AcceleratorError, of the CPU's allocator, of cuBLAS (torch 2.13)."""
POISON_WORDS = ("CUDA error", "cuDNN error", "CUDNN_STATUS_", "CUBLAS_STATUS_", "CUFFT_", "device-side assert")
"""After an error of this kind every later call in the same process fails as well."""


def fix_torch(threads: int) -> None:
    """The same sums in the same order, whatever the machine."""
    torch.set_num_threads(threads)
    # Read by cuBLAS when the first handle is made; without it deterministic matrix products are refused.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # As use_deterministic_algorithms(True, warn_only=True), which imports torch's compiler: 1.5 s of CPU time (2.13).
    torch.set_deterministic_debug_mode("warn")
    # Or every new tensor is filled with NaN first: 33 ms for the masks of 64 points in released sizes (one core), of
    # which a CPU then writes the live ones alone.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[reportAttributeAccessIssue]


class Device(Generic[Encoded]):
    """The model of a worker, and the lock by which its chunks take turns.

    The turn changes with every call of the model: while one chunk's masks are predicted, another's become run lengths.
    """

    def __init__(self, segmenter: Segmenter[Encoded], recipe: Recipe) -> None:
        self._segmenter = segmenter
        self._recipe = recipe
        self._turn = threading.Lock()

    def generate(self, image_HW3: Image_HW3, watch: Stopwatch, prompts: Prompts = EVERYTHING, /) -> ImageMasks:
        """The image's masks; with half the points and crops at once, and half again, while memory is short.

        On a GPU the first shortage also ends what takes memory only to save time. There, smaller calls may round
        otherwise in the last bits.

        watch   gets `compute` (the device's part), `turn` (waiting for it) and `rle` (all the rest); `halved` counts.
                A GPU's part is what its own clock says, also where the host was at work beside it.
        raises  DeviceError
        """
        clock, launched = _DeviceClock(), watch.seconds[Stage.COMPUTE]
        own, asked = self._segmenter, self._recipe.points_per_batch
        points, crops = own.points_at_once or asked, own.crops_at_once or CROPS_PER_ENCODE
        while True:
            segmenter = _Turns(own, self._turn, watch, clock, points, crops)
            try:
                with watch.stage(Stage.RLE):
                    [result] = generate_masks([image_HW3], segmenter, self._recipe, prompts=[prompts])
                launched = watch.seconds[Stage.COMPUTE] - launched
                watch.move(max(0.0, clock.seconds() - launched), source=Stage.RLE, target=Stage.COMPUTE)
                return result
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    if is_poisoned(error):
                        raise DeviceError(f"{type(error).__name__}: {error}") from error
                    raise
                if points == crops == 1:
                    raise DeviceError(f"one point of one crop does not fit the memory: {error}") from error
            # Outside the handler: the error holds on to the tensors of the attempt.
            points, crops = max(1, points // 2), max(1, crops // 2)
            watch.halved += 1
            own.spare_memory()
            torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may succeed in the same process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_WORDS)


def is_poisoned(error: Exception) -> bool:
    """Whether every later call in this process will fail as well."""
    accelerator_error = getattr(torch, "AcceleratorError", None)  # since torch 2.8
    if accelerator_error is not None and isinstance(error, accelerator_error):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in POISON_WORDS)


class _DeviceClock:
    """How long a GPU was at work on calls, by events that pass with them; nobody waits for a call to be over.

    Kernels of another image that are queued within a call count to it; only those that measure and trace masks can be.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def call(self) -> Generator[None]:
        if not torch.cuda.is_initialized():
            yield
            return
        begun, over = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        begun.record()
        yield
        over.record()
        self._calls.append((begun, over))

    def seconds(self) -> float:
        """Of all calls, once the last one is over, as it is when its masks have arrived."""
        if self._calls and not self._calls[-1][1].query():
            self._calls[-1][1].synchronize()
        return sum(begun.elapsed_time(over) for begun, over in self._calls) / 1000


@dataclass(frozen=True)
class _Turns(Generic[Encoded]):
    """A Segmenter whose calls wait for their turn and are timed."""

    segmenter: Segmenter[Encoded]
    turn: threading.Lock
    watch: Stopwatch
    clock: _DeviceClock
    points_at_once: int
    crops_at_once: int

    @property
    def frame_side(self) -> int:
        return self.segmenter.frame_side

    @property
    def outputs_per_prompt(self) -> int:
        return self.segmenter.outputs_per_prompt

    def spare_memory(self) -> None:
        self.segmenter.spare_memory()

    def placed(self, image_HW3: Image_HW3) -> Any:
        return placed(self.segmenter, image_HW3)

    def encode(self, crops_HW3: Sequence[Image_HW3]) -> Sequence[Encoded]:
        with self._turn():
            return self.segmenter.encode(crops_HW3)

    def decode(self, crop: Encoded, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float) -> Predictions:
        with self._turn():
            return ask(self.segmenter, crop, points_xy_P2, pred_iou_thresh=pred_iou_thresh, refine=False)

    def decode_refined(
        self, crop: Encoded, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float
    ) -> Predictions:
        with self._turn():
            return ask(self.segmenter, crop, points_xy_P2, pred_iou_thresh=pred_iou_thresh, refine=True)

    @contextmanager
    def _turn(self) -> Generator[None]:
        with self.watch.stage(Stage.TURN, within=Stage.RLE):
            self.turn.acquire()
        try:
            with self.watch.stage(Stage.COMPUTE, within=Stage.RLE), self.clock.call():
                yield
        finally:
            self.turn.release()
