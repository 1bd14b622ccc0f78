"""What a training minimises, for prompts that may mean several things.

Legend: P prompts, M outputs of a prompt, L levels of truth, N assignments, h w low-resolution cells.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.settings import KEEP_IOU, LossSettings

SLICE = 1024
"""Cells that are summed up at once on a GPU."""


@dataclass(frozen=True, slots=True)
class PromptLoss:
    """Means over the prompts; `total` is the one to minimise, the rest is for the log."""

    total: Tensor
    mask: Tensor
    iou: Tensor
    true_iou_PML: Tensor
    valid_PL: Tensor
    dense: Tensor = field(default_factory=lambda: torch.zeros(()))

    def detach(self) -> PromptLoss:
        """Without the graph."""
        return replace(self, total=self.total.detach())

    def figures(self) -> dict[str, Tensor]:
        """For the log, and on the device: the terms, the IoU of each truth's best output, the share of good outputs."""
        best_PL = self.true_iou_PML.amax(1)
        return {
            "mask": self.mask,
            "iou": self.iou,
            "dense": self.dense,
            "truth_iou": (best_PL * self.valid_PL).sum() / self.valid_PL.sum().clamp(min=1),
            "good": (self.true_iou_PML.amax(2) > KEEP_IOU).float().mean(),
        }


def ambiguous_point_loss(
    logits_PMhw: Tensor, predicted_iou_PM: Tensor, truths_PLhw: Tensor, valid_PL: Tensor, settings: LossSettings
) -> PromptLoss:
    """Loss of outputs that should between them cover every valid truth under their point.

    Each valid truth is assigned an output of its own, whichever assignment costs least (M >= L); an output that got
    none is drawn, weakly, to the truth nearest to it. Predicted IoU is compared with the IoU to the nearest truth.
    A prompt without a valid truth counts for nothing.
    """
    cost_PML = pairwise_mask_cost(logits_PMhw, truths_PLhw, settings)
    cost_PML = cost_PML.masked_fill(~valid_PL[:, None], 0.0)
    device = cost_PML.device
    orders = list(itertools.permutations(range(cost_PML.shape[1]), cost_PML.shape[2]))
    orders_NL, levels_L = torch.tensor(orders).to(device), torch.arange(cost_PML.shape[2], device=device)
    picked_P = cost_PML.detach()[:, orders_NL, levels_L].sum(-1).argmin(1)
    assigned_PL = orders_NL[picked_P]
    matched_PL = cost_PML.gather(1, assigned_PL[:, None]).squeeze(1)
    used_PM = torch.zeros(cost_PML.shape[:2], dtype=torch.bool, device=device).scatter_(1, assigned_PL, valid_PL)
    nearest_PM = cost_PML.masked_fill(~valid_PL[:, None], torch.inf).amin(2)
    asked_P = valid_PL.any(1)
    pull_PM = nearest_PM.masked_fill(used_PM | ~asked_P[:, None], 0.0)
    asked = asked_P.sum().clamp(min=1)
    mask = (matched_PL.sum() + settings.unused_pull * pull_PM.sum()) / asked
    true_iou_PML = pairwise_iou(logits_PMhw.detach() > 0, truths_PLhw).masked_fill(~valid_PL[:, None], 0.0)
    error_PM = _iou_cost(predicted_iou_PM, true_iou_PML.amax(2), settings)
    iou = error_PM[asked_P].sum() / (asked * error_PM.shape[1])
    return PromptLoss(mask + settings.iou_weight * iou, mask.detach(), iou.detach(), true_iou_PML, valid_PL)


def single_mask_loss(logits_Phw: Tensor, predicted_iou_P: Tensor, truth_Phw: Tensor, settings: LossSettings) -> Tensor:
    """Loss of the one output for prompts that leave no doubt; mean over the prompts."""
    logits_P1hw, truth_P1hw = logits_Phw[:, None], truth_Phw[:, None]
    mask = pairwise_mask_cost(logits_P1hw, truth_P1hw, settings).mean()
    true_iou_P = pairwise_iou(logits_P1hw.detach() > 0, truth_P1hw)[:, 0, 0]
    return mask + settings.iou_weight * _iou_cost(predicted_iou_P, true_iou_P, settings).mean()


def _iou_cost(predicted: Tensor, true: Tensor, settings: LossSettings) -> Tensor:
    error = predicted - true
    return error.abs() if settings.iou_absolute else error.square()


def pairwise_mask_cost(logits_PMhw: Tensor, truths_PLhw: Tensor, settings: LossSettings) -> Tensor:
    """(P, M, L): focal term (mean over cells, a truth's outline with more weight) plus dice term of every output
    against every truth of its prompt.

    source  focal arXiv:1708.02002 without its class weight, dice arXiv:1606.04797; SAM combines them 20 : 1
    """
    logits, truths = logits_PMhw.flatten(2).float(), truths_PLhw.flatten(2).float()
    on = logits.sigmoid()
    # What a cell costs where the truth is off, and how much more where it is on: the term is linear in the truth, so
    # all pairs are two matrix products. Without gamma that difference is the logit itself.
    negative, difference = F.softplus(logits), -logits
    if settings.focal_gamma:
        negative = negative * on**settings.focal_gamma
        difference = F.softplus(-logits) * (1 - on) ** settings.focal_gamma - negative
    if settings.boundary_weight:
        weights = 1 + settings.boundary_weight * outlines(truths_PLhw).flatten(2).float()
        sums = _products(difference, weights * truths) + _products(negative, weights)
        focal = sums / weights.sum(2)[:, None]
    else:
        focal = (_products(difference, truths) + negative.sum(2, keepdim=True)) / logits.shape[2]
    overlap = _products(on, truths)
    sizes = on.sum(2, keepdim=True) + truths.sum(2)[:, None]
    dice = 1 - (2 * overlap + 1) / (sizes + 1)
    return settings.focal_weight * focal + settings.dice_weight * dice


def outlines(labels_XLhw: Tensor) -> Tensor:
    """bool: the cells with another value beside them, to a side, above or below."""
    edges_XLhw = torch.zeros_like(labels_XLhw, dtype=torch.bool)
    across = labels_XLhw[..., 1:] != labels_XLhw[..., :-1]
    down = labels_XLhw[..., 1:, :] != labels_XLhw[..., :-1, :]
    edges_XLhw[..., 1:] |= across
    edges_XLhw[..., :-1] |= across
    edges_XLhw[..., 1:, :] |= down
    edges_XLhw[..., :-1, :] |= down
    return edges_XLhw


def pairwise_iou(masks_PMhw: Tensor, truths_PLhw: Tensor) -> Tensor:
    """(P, M, L) in [0, 1]; 0 where both are empty."""
    masks, truths = masks_PMhw.flatten(2).float(), truths_PLhw.flatten(2).float()
    overlap = _products(masks, truths)
    union = masks.sum(2, keepdim=True) + truths.sum(2)[:, None] - overlap
    return overlap / union.clamp(min=1)


def _products(outputs_PMN: Tensor, truths_PLN: Tensor) -> Tensor:
    """(P, M, L): the sums over N of every pair's products."""
    P, M, N = outputs_PMN.shape
    if not outputs_PMN.is_cuda or N % SLICE:
        return outputs_PMN @ truths_PLN.transpose(1, 2)
    # A GPU would give each of the P small products to one of its processors, which goes along N alone.
    outputs = outputs_PMN.reshape(P, M, -1, SLICE).transpose(1, 2)
    truths = truths_PLN.reshape(P, truths_PLN.shape[1], -1, SLICE).transpose(1, 2)
    return (outputs @ truths.transpose(2, 3)).sum(1)
