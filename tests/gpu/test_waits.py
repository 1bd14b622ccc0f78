"""The branches for GPUs, on a pretended device: the masks are those of a CPU, and every wait of an image is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.records import Stage
from pipeline.settings import Recipe
from pipeline.work.device import Device
from pipeline.work.stopwatch import Stopwatch
from tests.fake_segmenter import FakeSegmenter
from tests.gpu.conftest import CROPS, IMAGE, SAM, Both
from tests.gpu.pretended import CUDA, pretended_device
from tests.gpu.waits import Log, Wait

RECIPES = pytest.mark.parametrize("recipe", [SAM, CROPS], ids=["sam", "crops"])


@RECIPES
def test_masks_of_the_branches_for_gpus_are_those_of_a_cpu(both: Callable[[Recipe], Both], recipe: Recipe) -> None:
    """On a real GPU they differ by the rounding of its products, in which no branch of ours has a part."""
    done = both(recipe)
    assert len(done.on_cpu.masks) >= 5
    assert done.on_device == done.on_cpu


@pytest.mark.parametrize(("recipe", "crops"), [(SAM, 1), (CROPS, 5)], ids=["sam", "crops"])
def test_an_image_waits_once_for_each_crop_and_once_for_all_runs(
    both: Callable[[Recipe], Both], recipe: Recipe, crops: int
) -> None:
    """A wait that comes back is found here, with its line. Only the last two of an image can have nothing behind them;
    there the device goes on with the image of another chunk, if there is one."""
    log = both(recipe).log
    assert log.waits.total() == log.of(Wait.EVENT, Wait.EVENT_IDLE) == crops + 1, str(log)
    assert log.of(Wait.EVENT_IDLE) <= 2, str(log)
    assert {line.rpartition(":")[0] for _, _, line in log.waits} == {"pipeline/masks/on_gpu.py"}, str(log)


@RECIPES
def test_the_pixels_of_an_image_are_sent_once(both: Callable[[Recipe], Both], recipe: Recipe) -> None:
    """Those of 21 crops are 4.7 times as many. Grey levels are the only bytes that a device is given."""
    assert both(recipe).log.sent[torch.uint8] == IMAGE.nbytes


@pytest.fixture
def start() -> Iterator[Callable[[], Log]]:
    with pretended_device() as started:
        yield started


def test_the_pretended_device_sees_what_makes_a_host_wait(start: Callable[[], Log]) -> None:
    """The counts above are worth what is seen here: each of these lines waits on CUDA, or does not."""
    here = torch.from_numpy(np.arange(6.0)).to(CUDA)
    asks: list[tuple[Callable[[], object], Wait | None]] = [
        (lambda: here.sum().item(), Wait.VALUE),
        (lambda: bool(here[0] > 0), Wait.VALUE),
        (lambda: here.nonzero(), Wait.VALUE),
        (lambda: here[here > 2], Wait.SELECTION),
        (lambda: here[[0, 2]], Wait.COPY_IN),
        (lambda: here.cpu(), Wait.COPY_OUT),
        (lambda: here.to("cpu", non_blocking=True), Wait.COPY_OUT),
        (lambda: torch.ones(3).to(CUDA), Wait.COPY_IN),
        (lambda: torch.ones(3).to(CUDA, non_blocking=True), Wait.COPY_IN),
        (lambda: torch.ones(3).pin_memory().to(CUDA), Wait.COPY_IN),
        (lambda: torch.ones(3).pin_memory().to(CUDA, non_blocking=True), None),
        (lambda: torch.cuda.synchronize(), Wait.SYNCHRONIZE),
        (lambda: here.add_(1) @ here, None),
        (lambda: here.index_select(0, here.argsort()), None),
        (lambda: torch.where(here > 2, here, 0.0), None),
        (lambda: here.__setitem__(slice(4, None), 9.0), None),
    ]
    for ask, kind in asks:
        log = start()
        ask()
        assert log.waits.total() == log.of(*Wait) == (kind is not None), str(log)
        assert kind is None or log.of(kind)
    assert here.cpu().tolist() == [1, 2, 3, 4, 9, 9]


def test_operands_on_two_devices_are_an_error(start: Callable[[], Log]) -> None:
    """As on CUDA: otherwise the branches would pass here and fail on the first GPU."""
    with pytest.raises(RuntimeError, match="two devices"):
        _ = torch.ones(3).pin_memory().to(CUDA, non_blocking=True) + torch.ones(3)


def test_what_is_copied_to_pinned_memory_is_there_once_its_event_has_passed(start: Callable[[], Log]) -> None:
    """Numbers that are read too early are wrong on a real device from time to time, and here always."""
    here = torch.ones(3).to(CUDA)
    target, passed, log = torch.empty(3, pin_memory=True), torch.cuda.Event(), start()
    target.copy_(here, non_blocking=True)
    passed.record()
    here.add_(1)
    assert not passed.query()
    assert target.tolist() != [1, 1, 1]
    passed.synchronize()
    assert target.tolist() == [1, 1, 1]
    passed.synchronize()
    later = torch.cuda.Event()
    later.record()
    later.synchronize()
    assert (log.of(Wait.EVENT), log.of(Wait.EVENT_IDLE), log.waits.total()) == (1, 1, 2)


class Queuing(FakeSegmenter):
    """Every call is a hundred kernels on the pretended device, whose clock says a millisecond for each."""

    def encode(self, crops_HW3: Any) -> Any:
        for _ in range(100):
            torch.ones(1, device=CUDA)
        return super().encode(crops_HW3)


def test_compute_is_what_the_clock_of_the_device_says_and_nothing_waits_for_it(start: Callable[[], Log]) -> None:
    """A call returns once it is queued. What device and host did at the same time is counted once, as the device's."""
    watch, log = Stopwatch(), start()
    begun = time.perf_counter()
    Device(Queuing(), SAM).generate(IMAGE, watch)
    wall = time.perf_counter() - begun
    assert log.waits.total() == log.of(Wait.EVENT_IDLE) == 1, str(log)
    counted = sum(watch.seconds.values())
    assert 0 <= watch.seconds[Stage.RLE] < counted <= wall
    assert watch.seconds[Stage.COMPUTE] > 0.99 * min(counted, 0.1)
