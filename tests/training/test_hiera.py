"""Training a model of SAM 2's family: the whole square is an image, positions learn, and scores pass a sigmoid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.attention import attention
from model.hiera import halved
from model.load import load_sam
from model.sam import Sam
from model.training.batches import held_out_batches
from model.training.calibrate import fit
from model.training.device_views import device_batch
from model.training.export import export_calibrated
from model.training.forward import decode, encode, first_points, for_prompts, rows_of
from model.training.loop import Training, view_settings
from model.training.scenes import held_out_scene
from tests.model.sam2 import published
from tests.training.conftest import SMALL
from tests.training.mini import MINI_2

SETTINGS = replace(SMALL, model=MINI_2.name)


@pytest.fixture(scope="module")
def trained() -> Training:
    """Two steps."""
    training = Training(SETTINGS)
    for number in range(2):
        training.step(training.source.make(number))
    return training


def test_every_tensor_that_a_mask_depends_on_learns(trained: Training) -> None:
    """The positions of a Hiera are made of two tables, which would stay as they were if they were only read at load."""
    fresh = Training(SETTINGS).sam.state_dict()
    still = [name for name, value in trained.sam.state_dict().items() if torch.equal(value, fresh[name])]
    assert "image_encoder.trunk.pos_embed" not in still
    assert "image_encoder.trunk.pos_embed_window" not in still
    # What no first point asks: a random basis, other prompts, the object's token, the single mask and its network.
    asked_later = ("prompt_encoder.", "mask_decoder.obj_score_token.", "mask_decoder.output_hypernetworks_mlps.0.")
    assert not [name for name in still if not name.startswith(asked_later)]


def test_a_training_sees_what_the_finished_model_gives(trained: Training) -> None:
    """Where gradients are kept, some steps are done in other ways; a mask must not depend on it."""
    batch = trained.source.make(0)
    sam = trained.averaged()
    images = sam.normalise(batch.images_B3SS)

    def answers() -> tuple[torch.Tensor, torch.Tensor]:
        seen = for_prompts(encode(sam, batch), rows_of(batch))
        return decode(sam, seen, points=first_points(batch), several=True)

    learning = answers()
    with torch.inference_mode():
        for mine, wanted in zip(learning, answers(), strict=True):
            torch.testing.assert_close(mine.detach(), wanted, rtol=1e-4, atol=1e-4)
        alone = sam.embed(images[1:2])
        logits, scores = published(sam, alone, batch.points_BK2[1])
    torch.testing.assert_close(learning[0].detach()[2:], logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(learning[1].detach()[2:], scores, rtol=1e-4, atol=1e-4)


def test_attention_and_halving_are_those_of_use() -> None:
    """Both have a form of their own where gradients are kept, with the values and the gradient of the form of use."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attention(q, k, v), wanted)
    for mine, other in zip(
        torch.autograd.grad(attention(q, k, v).square().sum(), (q, k, v)),
        torch.autograd.grad(wanted.square().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)
    x_BssC = torch.randn(2, 4, 6, 3)
    with torch.no_grad():
        wanted = halved(x_BssC)
    x_BssC.requires_grad_()
    halves = halved(x_BssC)
    assert torch.equal(halves, wanted)
    (gradient,) = torch.autograd.grad(halves.sum(), x_BssC)
    is_largest = x_BssC.detach() == wanted.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(gradient, is_largest.float())


def test_views_fill_the_square_as_images_do_in_use() -> None:
    """SAM 2 stretches an image; one that learned with padding would see every wide image as a stranger."""
    view = view_settings(SETTINGS, MINI_2)
    assert view.stretched
    scenes = [held_out_scene(number) for number in range(4)]
    rgb, labels = (np.stack(each) for each in zip(*((s.rgb_HW3, s.labels_3HW) for s in scenes), strict=True))
    random = torch.Generator().manual_seed(0)
    on_device = device_batch(torch.from_numpy(rgb), torch.from_numpy(labels.astype(np.int16)), view, random)
    for batch in (*held_out_batches(view, images=4, batch=4), on_device):
        assert (batch.sizes_B2 == MINI_2.input_side).all()
        for edge in (batch.images_B3SS[..., -1], batch.images_B3SS[..., -1, :]):
            assert (edge > 0).flatten(1).any(1).all()
        for edge in (batch.labels_BLhw[..., -1], batch.labels_BLhw[..., -1, :]):
            assert (edge > 0).flatten(1).any(1).all()


def test_scores_that_pass_a_sigmoid_are_exported_as_they_are(trained: Training, tmp_path: Path) -> None:
    """A line through them would leave 0 to 1; the logits of masks are made decisive all the same."""
    view = view_settings(SETTINGS, MINI_2)
    calibration = fit(trained.averaged(), held_out_batches(view, images=2, batch=2))
    assert (calibration.iou_slope, calibration.iou_offset) == (1.0, 0.0)
    export_calibrated(trained.averaged(), tmp_path / "mini.safetensors", view, images=2, notes={})
    written = load_sam((tmp_path / "mini.safetensors").read_bytes(), expected=MINI_2)
    assert isinstance(written, Sam)
    for name, value in trained.averaged().state_dict().items():
        wanted = value
        if ".output_hypernetworks_mlps." in name and ".layers.2." in name:
            wanted = value * calibration.logit_factor
        elif name.endswith("mask_downscaling.0.weight"):
            wanted = value / calibration.logit_factor
        torch.testing.assert_close(written.state_dict()[name], wanted, rtol=2e-3, atol=2e-3)
