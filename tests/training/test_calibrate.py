"""Calibration changes scores, never a mask."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.sam import CONFIGS, Sam
from model.training.batches import held_out_batches
from model.training.calibrate import FACTORS, Calibration, apply, fit
from model.training.evaluate import outputs_and_truths
from model.training.forward import predict_points
from model.training.views import ViewSettings

VIEW = ViewSettings(input_side=128, mask_side=32, points=4, min_cells=6)


@pytest.fixture
def sam() -> Sam:
    torch.manual_seed(0)
    return Sam(replace(CONFIGS["tiny"], input_side=128)).eval()


def test_a_calibration_scales_logits_and_lines_up_scores(sam: Sam) -> None:
    """The masks are cut at logit 0, so a positive factor leaves each of them as it was."""
    (batch,) = held_out_batches(VIEW, images=2, batch=2)
    with torch.no_grad():
        logits, predicted = predict_points(sam, batch)
        apply(sam, Calibration(logit_factor=4.0, iou_slope=2.0, iou_offset=-0.3))
        scaled, lined = predict_points(sam, batch)
    assert torch.allclose(scaled, 4 * logits, rtol=1e-3, atol=1e-4)
    assert torch.allclose(lined, 2 * predicted - 0.3, atol=1e-4)


def test_an_answer_that_is_given_back_is_seen_as_before(sam: Sam) -> None:
    """Else a mask prompt would be several times as decided as any that the prompt encoder learned from."""
    logits_P1hw = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        _, before = sam.prompt_encoder(masks_P1hw=logits_P1hw)
        apply(sam, Calibration(4.0, 1.0, 0.0, prompts_too=True))
        _, after = sam.prompt_encoder(masks_P1hw=4 * logits_P1hw)
    assert torch.allclose(before, after, atol=1e-5)


def test_after_calibration_predicted_iou_has_the_mean_and_spread_of_the_true_one(sam: Sam) -> None:
    """Then about as many masks are above a threshold as should be."""
    batches = list(held_out_batches(VIEW, images=4, batch=2))
    calibration = fit(sam, batches)
    apply(sam, calibration)
    columns = outputs_and_truths(sam, batches)
    true_PM, predicted_PM = columns["true_iou_PML"].amax(2), columns["predicted_iou_PM"]
    assert float(predicted_PM.mean()) == pytest.approx(float(true_PM.mean()), abs=1e-3)
    assert float(predicted_PM.std()) == pytest.approx(float(true_PM.std()), abs=1e-3)
    assert calibration.logit_factor in FACTORS
