"""Losses on masks made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.losses import ambiguous_point_loss, outlines, pairwise_iou, pairwise_mask_cost
from model.training.settings import LossSettings

SETTINGS = LossSettings()


def half(*, left: int) -> Tensor:
    mask_hw = torch.zeros(8, 8, dtype=torch.bool)
    mask_hw[:, :left] = True
    return mask_hw


TRUTHS_1L = torch.stack([half(left=8), half(left=4), half(left=2)])[None]
ALL = torch.ones(1, 3, dtype=torch.bool)


def logits_of(masks: Tensor) -> Tensor:
    return (masks.float() * 2 - 1) * 12


def loss_of(
    logits_PMhw: Tensor, *, valid_PL: Tensor = ALL, predicted: float = 1.0, settings: LossSettings = SETTINGS
) -> float:
    predicted_PM = torch.full(logits_PMhw.shape[:2], predicted)
    return float(ambiguous_point_loss(logits_PMhw, predicted_PM, TRUTHS_1L, valid_PL, settings).total)


def test_perfect_outputs_cost_nothing_in_any_order() -> None:
    """Which output answers which level is the model's choice, not ours."""
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        assert loss_of(logits_of(TRUTHS_1L[:, order])) == pytest.approx(0, abs=1e-3)


def test_one_mask_three_times_costs_more_than_three_masks() -> None:
    """Each truth needs an output of its own, or all three would settle on the safest mask."""
    thrice = logits_of(TRUTHS_1L[:, [1, 1, 1]])
    assert loss_of(thrice) > 0.5


def test_an_unused_output_is_drawn_to_the_nearest_truth_but_weakly() -> None:
    """Without the pull it would drift anywhere; with full weight it would copy."""
    only_whole = torch.tensor([[True, False, False]])
    matched = logits_of(TRUTHS_1L[:, [0, 0, 0]])
    strays = logits_of(TRUTHS_1L[:, [0, 2, 2]])
    extra = loss_of(strays, valid_PL=only_whole) - loss_of(matched, valid_PL=only_whole)
    alone = float(pairwise_mask_cost(strays, TRUTHS_1L, SETTINGS)[0, 1, 0])
    iou_term = SETTINGS.iou_weight * 2 * (1 - 0.25) ** 2 / 3
    assert extra == pytest.approx(2 * SETTINGS.unused_pull * alone + iou_term, rel=1e-3)


def test_a_prompt_without_truth_counts_for_nothing() -> None:
    """Its outputs are not wrong, only unknown."""
    none = torch.zeros(1, 3, dtype=torch.bool)
    logits = logits_of(TRUTHS_1L).requires_grad_()
    loss = ambiguous_point_loss(logits, torch.ones(1, 3), TRUTHS_1L, none, SETTINGS)
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_predicted_iou_is_compared_with_the_nearest_truth() -> None:
    """The generator's 0.88 means IoU with something real, whichever level it is."""
    logits = logits_of(TRUTHS_1L)
    right, wrong = loss_of(logits, predicted=1.0), loss_of(logits, predicted=0.5)
    assert wrong - right == pytest.approx(SETTINGS.iou_weight * 0.25, abs=1e-4)


@pytest.mark.parametrize(("absolute", "cost"), [(False, 0.04), (True, 0.2)])
def test_the_error_of_the_predicted_iou_counts_squared_or_as_it_is(*, absolute: bool, cost: float) -> None:
    """SAM squares it, SAM 2 does not."""
    settings = replace(SETTINGS, iou_weight=1.0, iou_absolute=absolute)
    perfect = logits_of(TRUTHS_1L)
    assert loss_of(perfect, predicted=0.8, settings=settings) == pytest.approx(cost, abs=1e-3)


def test_the_focal_exponent_lowers_the_cost_of_easy_cells_only() -> None:
    """gamma 2 is the paper's; it must leave confident errors expensive."""
    focal = replace(SETTINGS, focal_gamma=2.0, dice_weight=0.0)
    plain = replace(SETTINGS, focal_gamma=0.0, dice_weight=0.0)
    easy, hard = logits_of(TRUTHS_1L[:, :1]) / 6, -logits_of(TRUTHS_1L[:, :1])
    truth = TRUTHS_1L[:, :1]
    assert float(pairwise_mask_cost(easy, truth, focal)) < 0.1 * float(pairwise_mask_cost(easy, truth, plain))
    assert float(pairwise_mask_cost(hard, truth, focal)) > 0.9 * float(pairwise_mask_cost(hard, truth, plain))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("boundary", [0.0, 2.0])
def test_the_cost_and_its_gradient_are_those_of_the_formula_written_out(gamma: float, boundary: float) -> None:
    """All pairs are two products; the papers have a sum over the cells of one pair."""
    settings = LossSettings(focal_gamma=gamma, boundary_weight=boundary)
    random = 6 * torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    ours, plain = random.clone().requires_grad_(), random.double().requires_grad_()
    found = pairwise_mask_cost(ours, TRUTHS_1L, settings)
    pairs = [[_written_out(plain[0, m], TRUTHS_1L[0, level], settings) for level in range(3)] for m in range(2)]
    expected = torch.stack([torch.stack(row) for row in pairs])[None]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    for cost in (found, expected):
        cost.square().sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), plain.grad, rtol=1e-5, atol=1e-6)


def _written_out(logits_hw: Tensor, truth_hw: Tensor, settings: LossSettings) -> Tensor:
    on_hw, truth = logits_hw.sigmoid(), truth_hw.double()
    right_hw = torch.where(truth_hw, on_hw, 1 - on_hw)
    weights = 1 + settings.boundary_weight * outlines(truth_hw)
    cells = weights * (1 - right_hw) ** settings.focal_gamma * F.binary_cross_entropy(on_hw, truth, reduction="none")
    dice = 1 - (2 * (on_hw * truth).sum() + 1) / (on_hw.sum() + truth.sum() + 1)
    return settings.focal_weight * cells.sum() / weights.sum() + settings.dice_weight * dice


def test_iou_of_empty_masks_is_zero_not_nan() -> None:
    """A young model predicts empty masks; one NaN would end the training."""
    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    assert float(pairwise_iou(nothing, nothing)) == 0
    assert float(pairwise_iou(TRUTHS_1L[:, :1], TRUTHS_1L[:, 1:2])) == pytest.approx(0.5)
