"""`make gpu-check` on the pretended device, and what it says where there is none."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu_check import NO_GPU, Job, Page, compared, main, measured, text
from pipeline.masks.agreement import Agreement
from pipeline.settings import Recipe
from tests.gpu.pretended import pretended_device
from tests.gpu.test_waits import Queuing
from tests.masks.conftest import scene

RECIPE, IMAGES = Recipe(points_per_side=4), [scene(32, 48, seed=1)]


def test_the_page_tells_agreement_and_speed_by_precision() -> None:
    """Of a model whose calls are kernels of the pretended device, by its clock. Real masks: test_waits."""
    with pretended_device(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda: 3e9)
        page = Page("a device", dict(compared(lambda _device, _precision: Queuing(), IMAGES, RECIPE)))
        page.speeds["fp32"] = measured(Queuing(), IMAGES, RECIPE, repetitions=1)
    assert page.agreements["fp32"].reference == page.agreements["fp32"].identical >= 1
    assert list(page.agreements) == ["fp32", "bf16x3", "bf16"]
    assert page.speeds["fp32"].encode == 100
    said = text(page, Job())
    assert "a device" in said
    assert "Right: " in said
    assert "      3.00" in said


def test_a_mask_that_is_missing_is_said() -> None:
    """For bf16 it is no error."""
    missing = Agreement(2, 2, 1, 2, 0.99, 0.98, 1, 0.1, same_order=True)
    assert Page("", {"fp32": missing, "bf16": missing}).wrong == ["fp32"]
    assert "WRONG: fp32" in text(Page("", {"fp32": missing}), Job())


def test_without_a_gpu_the_check_says_so_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody has installed the torch for CPUs, or sits at another machine."""
    assert main([]) == NO_GPU == 2
    assert "There is no GPU to check" in capsys.readouterr().err
