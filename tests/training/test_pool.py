"""Views that are made on the device, and the scenes they are made of."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from model.config import CONFIGS, ModelConfig
from model.training.batches import Batch
from model.training.device_views import device_batch
from model.training.forward import Step, batch_loss
from model.training.learner import Learner
from model.training.scene_pool import PoolSettings, ScenePool
from model.training.scenes import DrawnScenes
from model.training.settings import LossSettings
from model.training.views import ViewSettings
from tests.gpu.pretended import CUDA, inner_of, moved, pretended_device
from tests.training.conftest import SMALL
from tests.training.mini import MINI_2

VIEW = ViewSettings(input_side=64, mask_side=32, points=6, min_cells=10, whole_share=0.3)


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """rgb_BHW3 and labels_BLHW. Read only. Drawn where they are asked for, and not wherever tests are collected."""
    scenes = [DrawnScenes(5).scene(number) for number in range(8)]
    labels_BLHW = np.stack([scene.labels_3HW for scene in scenes]).astype(np.int16)
    return torch.from_numpy(np.stack([scene.rgb_HW3 for scene in scenes])), torch.from_numpy(labels_BLHW)


@cache
def views() -> Batch:
    """Of these images; read only."""
    return device_batch(*images(), VIEW, rng())


def test_every_valid_truth_of_a_device_view_contains_its_point_and_enough_cells() -> None:
    """A point beside its truth would teach the decoder to ignore points."""
    batch = views()
    cells_BK2 = ((batch.points_BK2 + 0.5) / 2).floor().long()
    assert bool(batch.valid_BKL[:, :, 0].all())
    for image, k, level in batch.valid_BKL.nonzero().tolist():
        x, y = cells_BK2[image, k].tolist()
        truth_hw = batch.truths_BKLhw[image, k, level]
        assert truth_hw[y, x]
        assert int(truth_hw.sum()) >= VIEW.min_cells
    assert not batch.truths_BKLhw[~batch.valid_BKL].any()


def test_device_views_have_their_padding_at_the_bottom_and_right() -> None:
    """As in use; and some views are whole scenes, some are crops of either format."""
    rgb_BHW3, labels_BLHW = (each.repeat(4, 1, 1, 1) for each in images())
    batch = device_batch(rgb_BHW3, labels_BLHW, VIEW, rng())
    for image, (h, w) in enumerate(batch.sizes_B2.tolist()):
        assert max(h, w) == VIEW.input_side
        assert not batch.labels_BLhw[image, :, -(-h // 2) :].any()
        assert not batch.labels_BLhw[image, :, :, -(-w // 2) :].any()
        assert not batch.images_B3SS[image, :, h:].any()
        assert not batch.images_B3SS[image, :, :, w:].any()
    sizes = {(h == 64, w == 64) for h, w in batch.sizes_B2.tolist()}
    assert sizes == {(True, True), (True, False), (False, True)}


def test_a_device_view_keeps_labels_on_the_pixels_they_name() -> None:
    """Crop, scale and flip act on the picture and on its truth alike."""
    rgb_HW3 = torch.zeros(96, 96, 3, dtype=torch.uint8)
    labels_LHW = torch.ones(3, 96, 96, dtype=torch.int16)
    rgb_HW3[:, :41] = 240
    labels_LHW[0, :, :41] = 2
    batch = device_batch(rgb_HW3.expand(40, -1, -1, -1), labels_LHW.expand(40, -1, -1, -1), VIEW, rng())
    seen: set[bool] = set()
    for image, (h, w) in enumerate(batch.sizes_B2.tolist()):
        light_hw = batch.images_B3SS[image, :, 1:h:2, 1:w:2].float().mean(0)
        named_hw = batch.labels_BLhw[image, 0, : light_hw.shape[0], : light_hw.shape[1]] == 2
        if 0 < named_hw.sum() < named_hw.numel():
            middle = (light_hw[named_hw].mean() + light_hw[~named_hw].mean()) / 2
            assert ((light_hw > middle) == named_hw).float().mean() > 0.93
            seen.add(bool(named_hw[0, 0]))
    assert seen == {True, False}  # mirrored and not


def test_a_device_view_of_nothing_has_no_valid_point() -> None:
    """Such views exist (a crop of crumbs); they must not stop a training."""
    rgb_BHW3, labels_BLHW = images()
    batch = device_batch(rgb_BHW3, torch.zeros_like(labels_BLHW), VIEW, rng())
    assert not batch.valid_BKL.any()
    assert not batch.truths_BKLhw.any()


@pytest.mark.parametrize("config", [CONFIGS["tiny"], MINI_2], ids=["plain ViT", "Hiera"])
def test_a_step_on_a_gpu_has_all_its_operands_there_and_the_same_loss(config: ModelConfig) -> None:
    """Most of a training on a GPU is code that a test on a CPU would pass with a tensor on the wrong device."""
    config = replace(config, input_side=64)
    torch.manual_seed(0)
    learner = Learner(config).eval()
    settings = replace(SMALL, follow_ups=3, loss=LossSettings(boundary_weight=2.0))
    with torch.no_grad():
        here = batch_loss(learner, views(), Step(settings, follow_up=True, rng=rng())).total
    with pretended_device(), torch.no_grad():
        moved(learner)
        rgb_BHW3, labels_BLHW = (each.to(CUDA) for each in images())
        assert device_batch(rgb_BHW3, labels_BLHW, VIEW, None).images_B3SS.is_cuda
        there = batch_loss(learner, views().to(CUDA), Step(settings, follow_up=True, rng=rng())).total
    assert torch.allclose(here, inner_of(there), rtol=1e-5)


def test_a_pool_takes_in_new_scenes_in_the_place_of_the_oldest() -> None:
    """Drawing goes on while the training does."""
    with ScenePool(DrawnScenes(5), PoolSettings(scenes=4, least=2, workers=2), torch.device("cpu"), first=6) as pool:
        batches: list[Batch] = []
        while pool.taken_in < 10:
            batches.append(pool.batch(3, VIEW, rng(len(batches))))
        assert all(batch.images_B3SS.shape == (3, 3, 64, 64) for batch in batches)
        kept = pool._kept
        assert kept is not None
        wanted = [DrawnScenes(5).scene(number).rgb_HW3 for number in range(6, 20)]
        for rgb_HW3 in kept.rgb_NHW3.numpy():
            assert any(np.array_equal(rgb_HW3, each) for each in wanted)
        assert len({each.tobytes() for each in kept.rgb_NHW3.numpy()}) == 4
