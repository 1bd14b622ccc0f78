"""A device that is short of memory, or poisoned, and chunks that share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import DeviceError
from pipeline.masks.generator import CROPS_PER_ENCODE
from pipeline.records import Stage
from pipeline.settings import Recipe
from pipeline.work.device import Device, Image_HW3, fix_torch
from pipeline.work.stopwatch import Stopwatch
from tests.fake_segmenter import FakeSegmenter

RECIPE = Recipe(points_per_side=8, crop_n_layers=1)
IMAGE_HW3 = np.random.default_rng(1).integers(0, 255, (50, 60, 3), dtype=np.uint8)
CUDA_TEXT = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


class Short(FakeSegmenter):
    """Raises if it is asked for more than `points` points, or `crops` crops, at once."""

    def __init__(self, error: Callable[[], Exception], *, points: int, crops: int = CROPS_PER_ENCODE) -> None:
        super().__init__()
        self._error = error
        self._points, self._crops = points, crops

    def encode(self, crops_HW3: Sequence[Image_HW3]) -> Any:
        if len(crops_HW3) > self._crops:
            raise self._error()
        return super().encode(crops_HW3)

    def decode(self, crop: Any, points_xy_P2: Any, *, pred_iou_thresh: float) -> Any:
        if len(points_xy_P2) > self._points:
            raise self._error()
        return super().decode(crop, points_xy_P2, pred_iou_thresh=pred_iou_thresh)


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        lambda: torch.AcceleratorError("CUDA error: out of memory"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        lambda: MemoryError("Unable to allocate 3.00 GiB for an array"),
    ],
    ids=["torch", "cublas", "accelerator", "cpu", "numpy"],
)
def test_without_memory_batches_are_halved_until_they_fit_and_the_masks_are_the_same(error: Callable[[], Exception]):
    """An image that needs more than there is must not cost the process, nor its own masks."""
    watch = Stopwatch()
    expected = Device(FakeSegmenter(), RECIPE).generate(IMAGE_HW3, Stopwatch())
    assert expected.masks
    assert Device(Short(error, points=20, crops=3), RECIPE).generate(IMAGE_HW3, watch) == expected
    assert watch.halved == 2, "64 points and 8 crops, 32 and 4, 16 and 2"


def test_fewer_crops_at_once_are_enough_where_only_the_encoder_is_short_of_memory():
    """Each crop of a batch has its own activations; points are decoded one crop at a time."""
    watch = Stopwatch()
    short = Short(lambda: torch.OutOfMemoryError("CUDA out of memory"), points=64, crops=3)
    expected = Device(FakeSegmenter(), RECIPE).generate(IMAGE_HW3, Stopwatch())
    assert Device(short, RECIPE).generate(IMAGE_HW3, watch) == expected
    assert watch.halved == 2, "5 crops in batches of 8, of 4, of 2"


def test_one_point_at_a_time_is_no_reason_to_give_up_while_crops_can_be_fewer():
    """Somebody has set recipe.points_per_batch=1 for a small device; the encoder may still be what is short."""
    recipe, watch = replace(RECIPE, points_per_batch=1), Stopwatch()
    short = Short(lambda: torch.OutOfMemoryError("CUDA out of memory"), points=1, crops=1)
    assert Device(short, recipe).generate(IMAGE_HW3, watch).masks
    assert watch.halved == 3


class ShortGpu(Short):
    """A segmenter that says how much it wants at once, whatever the recipe says."""

    points_at_once, crops_at_once = 64, 7
    spared = 0

    def spare_memory(self) -> None:
        self.spared += 1


def test_a_gpu_that_is_short_of_memory_is_asked_for_half_of_what_it_wants_at_once():
    """The recipe's numbers mean nothing to it; and it gives up what only saves time."""
    recipe, watch = replace(RECIPE, points_per_batch=2), Stopwatch()
    short = ShortGpu(lambda: torch.OutOfMemoryError("CUDA out of memory"), points=20, crops=2)
    assert Device(short, recipe).generate(IMAGE_HW3, watch) == Device(FakeSegmenter(), RECIPE).generate(
        IMAGE_HW3, Stopwatch()
    )
    assert watch.halved == short.spared == 2, "64 points and 7 crops, 32 and 3, 16 and 1"


def test_the_next_image_has_whole_batches_again():
    """A single large image must not slow down all that come after it."""
    short = Short(lambda: torch.OutOfMemoryError("CUDA out of memory"), points=20)
    device, watch = Device(short, RECIPE), Stopwatch()
    device.generate(IMAGE_HW3, watch)
    halved = watch.halved
    short._points = 64
    device.generate(IMAGE_HW3, watch)
    assert watch.halved == halved


def test_an_image_that_does_not_fit_at_all_needs_another_process():
    """Something else may hold the memory; it is not known that the image is to blame."""
    device = Device(Short(lambda: torch.OutOfMemoryError("CUDA out of memory"), points=0), RECIPE)
    with pytest.raises(DeviceError, match="one point of one crop does not fit"):
        device.generate(IMAGE_HW3, Stopwatch())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(CUDA_TEXT),
        torch.AcceleratorError(CUDA_TEXT),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_poisoned_device_is_told_from_a_bug(error: Exception):
    """It poisons the process: every later image would fail for it. A bug's exception stays what it is."""
    with pytest.raises(DeviceError, match=str(error).splitlines()[0]):
        Device(Short(lambda: error, points=0), RECIPE).generate(IMAGE_HW3, Stopwatch())
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        Device(Short(lambda: RuntimeError("a bug"), points=0), RECIPE).generate(IMAGE_HW3, Stopwatch())


def test_in_a_worker_new_tensors_are_not_filled_before_they_are_written():
    """Sums in a fixed order do not need it, and on a CPU it cost more than the masks of a batch of points."""
    before = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    fix_torch(1)
    mode = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[reportAttributeAccessIssue]
    torch.set_deterministic_debug_mode(before[0])
    torch.set_num_threads(before[1])
    assert (mode, filled) == (1, False)


class Exclusive(FakeSegmenter):
    """Fails if two calls overlap; every call takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def decode(self, crop: Any, points_xy_P2: Any, *, pred_iou_thresh: float) -> Any:
        assert self._lock.acquire(blocking=False), "two calls at once"
        time.sleep(0.05)
        self._lock.release()
        return super().decode(crop, points_xy_P2, pred_iou_thresh=pred_iou_thresh)


def test_two_chunks_take_turns_call_by_call_and_each_is_told_its_own_time():
    """Two models' worth of activations would not fit the device; and the wait for it is not work."""
    device, watches = Device(Exclusive(), RECIPE), [Stopwatch(), Stopwatch()]
    alone = device.generate(IMAGE_HW3, Stopwatch())
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda watch: device.generate(IMAGE_HW3, watch), watches))
    assert results == [alone, alone]
    for watch in watches:
        assert watch.seconds[Stage.COMPUTE] >= 5 * 0.05, "five crops"
        assert watch.seconds[Stage.TURN] >= 0.05
        assert watch.seconds[Stage.RLE] > 0
