"""Views and points: truths under their points, on the padded low-resolution square."""

from __future__ import annotations

import itertools
import subprocess
import sys
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import torch

from model.training.batches import Batch, TrainingBatches, prefetched, split_batch
from model.training.processes import background
from model.training.scenes import LEVELS, DrawnScenes, Scene
from model.training.views import TrainingViews, ViewSettings, choose_points, make_view, places

VIEW = ViewSettings(input_side=64, mask_side=32, points=6, min_cells=10)


SOURCE = TrainingBatches(TrainingViews(5, VIEW, batch=2, views_per_scene=2, scenes=DrawnScenes(5)))


@cache
def four_batches() -> list[Batch]:
    """Read only. Drawn where they are asked for, and not wherever tests are collected."""
    return [SOURCE.make(number) for number in range(4)]


def test_background_processes_make_the_batches_from_a_number_on() -> None:
    """The position in the data is one number in the checkpoint, and where an image is made must not matter."""
    with closing(prefetched(SOURCE, start=2, workers=2, depth=2)) as batches:
        ahead = list(itertools.islice(batches, 2))
    for here, there in zip(four_batches()[2:], ahead, strict=True):
        assert torch.equal(here.images_B3SS, there.images_B3SS)
        assert torch.equal(here.points_BK2, there.points_BK2)
        assert torch.equal(here.truths_BKLhw, there.truths_BKLhw)


def test_a_process_that_makes_views_needs_no_torch() -> None:
    """It would take 1.8 s of CPU time and 190 MB in each of them, which begin with the file of the command."""
    command = [sys.executable, "-c", "import sys, jobs.train; sys.exit('torch' in sys.modules)"]
    assert subprocess.run(command, cwd=Path(__file__).parent.parent.parent, check=False).returncode == 0
    [process] = background(SOURCE.views, 1)
    with process:
        assert len(process.submit(places, 0, 0, 1).result()) == SOURCE.views.batch
        assert not process.submit(eval, "'torch' in __import__('sys').modules").result()


def test_every_valid_truth_contains_its_point_and_enough_cells() -> None:
    """A point beside its truth would teach the decoder to ignore points."""
    for batch in four_batches():
        cells_BK2 = ((batch.points_BK2 + 0.5) / 2).floor().long()
        for image, k, level in batch.valid_BKL.nonzero().tolist():
            x, y = cells_BK2[image, k].tolist()
            truth_hw = batch.truths_BKLhw[image, k, level]
            assert truth_hw[y, x]
            assert int(truth_hw.sum()) >= VIEW.min_cells
        assert not batch.truths_BKLhw[~batch.valid_BKL].any()


def test_truths_stay_out_of_the_padding() -> None:
    """The released model pads at the bottom and right; a mask there would be cut off at inference."""
    for batch in four_batches():
        for image, (h, w) in enumerate(batch.sizes_B2.tolist()):
            rows, columns = -(-h // 2), -(-w // 2)
            assert not batch.truths_BKLhw[image, ..., rows:, :].any()
            assert not batch.truths_BKLhw[image, ..., columns:].any()
            assert not batch.images_B3SS[image, :, h:].any()


def test_a_view_keeps_labels_on_the_pixels_they_name() -> None:
    """Crop, scale and flip act on the picture and on its truth alike."""
    rgb_HW3 = np.zeros((96, 96, 3), np.uint8)
    labels_3HW = np.zeros((LEVELS, 96, 96), np.uint16)
    labels_3HW[0] = 1
    rgb_HW3[:, :48] = 240
    labels_3HW[0, :, :48] = 2
    for number in range(20):
        view = make_view(Scene(rgb_HW3, labels_3HW), VIEW, np.random.default_rng(number))
        h, w = view.rgb_hw3.shape[:2]
        bright_hw = view.rgb_hw3[1:h:2, 1:w:2].mean(axis=2) > 90
        agree = (view.labels_Lhw[0, : bright_hw.shape[0], : bright_hw.shape[1]] == 2) == bright_hw
        assert agree.mean() > 0.93


def test_a_view_without_anything_large_enough_has_no_valid_point() -> None:
    """Such views exist (a crop of crumbs); they must not stop a training."""
    labels_Lhw = np.zeros((LEVELS, 32, 32), np.uint16)
    labels_Lhw[0, :2, :2] = 9
    points_K2, truths_KLhw, valid_KL = choose_points(labels_Lhw, VIEW, np.random.default_rng(0))
    assert points_K2.shape == (6, 2)
    assert not valid_KL.any()
    assert not truths_KLhw.any()


def test_splitting_a_batch_keeps_every_image_once_and_in_order() -> None:
    """Replicas share a step; an image lost or doubled would change what is learned."""
    batch = four_batches()[0]
    parts = split_batch(batch, 2)
    assert torch.equal(torch.cat([part.images_B3SS for part in parts]), batch.images_B3SS)
    assert torch.cat([part.sizes_B2 for part in parts]).equal(batch.sizes_B2)
