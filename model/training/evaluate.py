"""How good a model is on views of the held-out scenes: one point, three outputs, low resolution. Quick, for curves.

What a model card says is measured by `jobs.evaluate`, at full resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from model.sam import Sam
from model.training.batches import Batch
from model.training.forward import at_cells_of, predict_points
from model.training.losses import pairwise_iou
from model.training.settings import KEEP_IOU, KEEP_STABILITY


@dataclass(frozen=True)
class Evaluation:
    """Means over held-out points; every IoU is on the grid of the truths."""

    points: int
    truths: int
    truth_iou: float
    """Best output's IoU, mean over all truths."""
    best_iou: float
    """Best output's IoU with its nearest truth, mean over points."""
    top_iou: float
    """The same for the output that the model itself ranks first."""
    predicted_error: float
    """Mean absolute error of the predicted IoU over all outputs."""
    share_good: float
    """Outputs whose true IoU is above KEEP_IOU."""
    share_confident: float
    """Outputs with predicted IoU above KEEP_IOU."""
    share_stable: float
    """Outputs with stability of at least KEEP_STABILITY."""
    share_kept: float
    """Outputs that pass both thresholds."""
    kept_iou: float
    """True IoU of the outputs that pass both; 0 if none does."""

    def __str__(self) -> str:
        return " ".join(
            f"{name}={value:.3f}" if isinstance(value, float) else f"{name}={value}"
            for name, value in asdict(self).items()
        )


@torch.no_grad()
def outputs_and_truths(
    sam: Sam, batches: Iterable[Batch], *, logit_factors: Sequence[float] = (1.0,)
) -> dict[str, Tensor]:
    """Columns over all held-out points: true_iou_PML, valid_PL, predicted_iou_PM, stability_PFM.

    F are `logit_factors`, by which logits are multiplied before stability is measured.
    """
    names = ("true_iou_PML", "valid_PL", "predicted_iou_PM", "stability_PFM")
    columns: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in batches:
        batch = batch.to(sam.pixel_mean.device)
        logits_PMhw, predicted_iou_PM = predict_points(sam, batch)
        asked_P = batch.valid_BKL.flatten(0, 1).any(1)
        valid_PL = batch.valid_BKL.flatten(0, 1)[asked_P]
        truths_PLhw = batch.truths_BKLhw.flatten(0, 1)[asked_P]
        logits_PMhw = at_cells_of(logits_PMhw[asked_P], truths_PLhw)
        true_iou_PML = pairwise_iou(logits_PMhw > 0, truths_PLhw)
        columns["true_iou_PML"].append(true_iou_PML.masked_fill(~valid_PL[:, None], 0.0))
        columns["valid_PL"].append(valid_PL)
        columns["predicted_iou_PM"].append(predicted_iou_PM[asked_P].float())
        columns["stability_PFM"].append(torch.stack([stability(logits_PMhw * f) for f in logit_factors], dim=1))
    return {name: torch.cat(parts).cpu() for name, parts in columns.items()}


def stability(logits_PMhw: Tensor) -> Tensor:
    """(P, M): IoU of the cuts at +1 and -1; 0 where the looser cut is empty."""
    tight, loose = (logits_PMhw > 1).sum((2, 3)), (logits_PMhw > -1).sum((2, 3))
    return tight / loose.clamp(min=1)


def summarise(columns: dict[str, Tensor]) -> Evaluation:
    """The figures of one evaluation, with logits as they are under the first factor."""
    true_iou_PML, valid_PL = columns["true_iou_PML"], columns["valid_PL"]
    predicted_PM, stability_PM = columns["predicted_iou_PM"], columns["stability_PFM"][:, 0]
    nearest_PM = true_iou_PML.amax(2)
    top_P = nearest_PM.gather(1, predicted_PM.argmax(1, keepdim=True))
    confident_PM, stable_PM = predicted_PM > KEEP_IOU, stability_PM >= KEEP_STABILITY
    kept_PM = confident_PM & stable_PM
    return Evaluation(
        points=len(valid_PL),
        truths=int(valid_PL.sum()),
        truth_iou=float(true_iou_PML.amax(1)[valid_PL].mean()),
        best_iou=float(nearest_PM.amax(1).mean()),
        top_iou=float(top_P.mean()),
        predicted_error=float((predicted_PM - nearest_PM).abs().mean()),
        share_good=float((nearest_PM > KEEP_IOU).float().mean()),
        share_confident=float(confident_PM.float().mean()),
        share_stable=float(stable_PM.float().mean()),
        share_kept=float(kept_PM.float().mean()),
        kept_iou=float(nearest_PM[kept_PM].mean()) if bool(kept_PM.any()) else 0.0,
    )
