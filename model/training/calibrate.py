"""Fitting a model's scores to what its masks are worth, on held-out scenes, by scaling two last layers.

No mask of a point changes: logits are multiplied by a positive factor, and predicted IoU goes through a rising line
where it passes no sigmoid. What does change is which masks pass the generator's fixed thresholds, so the factors belong
on the model's card. (SAM 2's single mask, which gives way where it wavers, does so more rarely.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from model.sam import Sam
from model.training.batches import Batch
from model.training.evaluate import outputs_and_truths
from model.training.settings import KEEP_IOU, KEEP_STABILITY

FIRST_SCENE = 500_000
"""Held-out scenes from here on are for calibration; evaluation takes those from 0 on."""
FACTORS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0)
STABLE_SHARE = 0.9
"""Of the good masks, those that should pass the stability threshold."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """mask logits are multiplied by `logit_factor`; predicted IoU p becomes iou_slope * p + iou_offset.

    prompts_too  whether logits that are given back as a prompt are divided by the factor first, as the prompt encoder
                 learned them; files of before leave that out
    """

    logit_factor: float
    iou_slope: float
    iou_offset: float
    prompts_too: bool = False


@torch.no_grad()
def fit(sam: Sam, batches: Iterable[Batch]) -> Calibration:
    """Match the predicted IoU's mean and spread to the true one's; make most good masks stable.

    A prediction by least squares has less spread than the truth, the less the more it errs, and would never reach a
    high threshold; matched in mean and spread, about as many outputs are above it as should be.
    Scores that pass a sigmoid stay as they are, since no rising line keeps them between 0 and 1.
    The factor is the least of FACTORS with which STABLE_SHARE of the good masks are stable. Good means a true IoU above
    KEEP_IOU or, where fewer masks than that are so good, the best twentieth.
    """
    columns = outputs_and_truths(sam, batches, logit_factors=FACTORS)
    true_N, predicted_N = columns["true_iou_PML"].amax(2).flatten(), columns["predicted_iou_PM"].flatten()
    stable_FN = columns["stability_PFM"].transpose(0, 1).flatten(1)
    slope, offset = 1.0, 0.0
    if not sam.config.sigmoid_scores:
        slope = float(true_N.std() / predicted_N.std())
        offset = float(true_N.mean()) - slope * float(predicted_N.mean())
    good_N = true_N > min(KEEP_IOU, float(true_N.quantile(0.95)))
    share_F = (stable_FN[:, good_N] >= KEEP_STABILITY).float().mean(1)
    enough = [factor for factor, share in zip(FACTORS, share_F.tolist(), strict=True) if share >= STABLE_SHARE]
    return Calibration(min(enough, default=FACTORS[-1]), slope, offset, prompts_too=True)


@torch.no_grad()
def apply(sam: Sam, calibration: Calibration) -> None:
    """Put a calibration into the weights."""
    for head in sam.mask_decoder.output_hypernetworks_mlps:
        for parameter in _last_linear(head).parameters():
            parameter.mul_(calibration.logit_factor)
    if calibration.prompts_too:
        sam.prompt_encoder.mask_downscaling[0].get_parameter("weight").div_(calibration.logit_factor)
    score = _last_linear(sam.mask_decoder.iou_prediction_head)
    for parameter in score.parameters():
        parameter.mul_(calibration.iou_slope)
    score.bias.add_(calibration.iou_offset)


def undo(sam: Sam, calibration: Calibration) -> None:
    """Take a calibration off the weights again, for a training that starts from them."""
    slope = calibration.iou_slope
    back = Calibration(1 / calibration.logit_factor, 1 / slope, -calibration.iou_offset / slope)
    apply(sam, replace(back, prompts_too=calibration.prompts_too))


def read_notes(weights: Path) -> dict[str, str]:
    """What stands beside the weights of a safetensors file; nothing for any other file."""
    if weights.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        return file.metadata() or {}


def calibration_of(weights: Path) -> Calibration | None:
    """The one that an exported file was given."""
    noted = read_notes(weights).get("calibration")
    return Calibration(**json.loads(noted)) if noted else None


def _last_linear(head: nn.Module) -> nn.Linear:
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
