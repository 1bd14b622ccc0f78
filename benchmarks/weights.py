"""The checkpoint file that all peers of a model load: given, bundled, or a stand-in of the right sizes.

Where there are no weights, those of `tiny` are widened to the sizes asked for: cost depends on shapes and on
how many masks survive, not on how good they are. They are calibrated so that as many survive as `Shares` assumes, and
the tables call them what they are.
Legend: P points, N masks, h w low-resolution cells.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.cases import drawn_image
from benchmarks.image_cost import Shares
from benchmarks.widen import widened
from model.config import CONFIGS
from model.load import BUNDLED, load_sam, resolve_device
from model.segmenter import TorchSegmenter
from model.training.calibrate import Calibration, apply
from pipeline.masks.crops import grid_points
from pipeline.masks.filters import stability_scores
from pipeline.settings import Recipe

CALIBRATION_SCENE = 77
CALIBRATION_HW = (683, 1024)
POINTS_PER_SIDE = 8
ABOVE_IOU = Shares().above
"""Share of the predicted masks that pass the predicted-IoU threshold."""
STABLE = Shares().stable / Shares().above
"""Share of those that are also stable."""
FACTORS = tuple(2 ** (power / 4) for power in range(-8, 33))


@dataclass(frozen=True, slots=True)
class Weights:
    """One model's checkpoint under the released names."""

    model: str
    path: Path
    sha256: str
    kind: str
    """bundled, given or widened."""

    @property
    def note(self) -> str:
        """What the weights are, for whoever reads a table."""
        if self.kind != "widened":
            return f"{self.kind} weights"
        return (
            f"the bundled tiny model's function in the sizes of {self.model}, calibrated so that {ABOVE_IOU:.0%} of "
            "the predicted masks pass the score on one scene; not weights that Segment Anything was released with"
        )


def find_weights(model: str, *, given: str | None, folder: Path) -> Weights:
    """The checkpoint for `model`, written into `folder` in float32.

    given   path of the user's checkpoint in any layout that model/load.py reads
    raises  CheckpointError if it does not fit the model; KeyError for an unknown model
    """
    path = folder / f"{model}.pth"
    if given is not None or model in BUNDLED:
        source = BUNDLED[model] if given is None else Path(given)
        tensors = load_sam(source.read_bytes(), expected=CONFIGS[model]).state_dict()
        _save(tensors, path)
        return Weights(model, path, _sha256(source), "bundled" if given is None else "given")
    path = folder / f"{model}-widened.pth"
    if not path.exists():
        _save(_widened(model), path)
    return Weights(model, path, _sha256(path), "widened")


def _widened(model: str) -> dict[str, torch.Tensor]:
    """The bundled model's function in the sizes of `model`, its scores shifted and its logits scaled."""
    sam = widened(load_sam(BUNDLED["tiny"].read_bytes()), CONFIGS[model]).to(resolve_device("auto"))
    image_HW3 = drawn_image(model, CALIBRATION_SCENE, CALIBRATION_HW)
    segmenter = TorchSegmenter(sam, weights_sha256="")
    points_xy_P2 = grid_points(CALIBRATION_HW, POINTS_PER_SIDE)
    answer = segmenter.decode(segmenter.encode([image_HW3])[0], points_xy_P2, pred_iou_thresh=-math.inf)
    iou_PM, logits_PMhw = answer.predicted_iou_PM.cpu(), answer.logits_PMhw.cpu()
    recipe = Recipe()
    offset = recipe.pred_iou_thresh - float(iou_PM.quantile(1 - ABOVE_IOU))
    above_Nhw = logits_PMhw[iou_PM > recipe.pred_iou_thresh - offset]
    # The cut moves through the logits by 1; that is to scale the logits, read the other way.
    stable = [_stable_share(above_Nhw, recipe, offset=recipe.stability_score_offset / factor) for factor in FACTORS]
    factor = next((factor for factor, share in zip(FACTORS, stable, strict=True) if share >= STABLE), FACTORS[-1])
    apply(sam.cpu(), Calibration(factor, 1.0, offset))
    return sam.state_dict()


def _stable_share(logits_Nhw: torch.Tensor, recipe: Recipe, *, offset: float) -> float:
    """The share of masks that are stable, by counts of low-resolution cells."""
    inside_Nhw = logits_Nhw != 0  # cells of the padding are exactly 0
    tight_N, loose_N = (logits_Nhw > offset).sum((1, 2)), ((logits_Nhw > -offset) & inside_Nhw).sum((1, 2))
    return float((stability_scores(tight_N.numpy(), loose_N.numpy()) >= recipe.stability_score_thresh).mean())


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(tensors, part)
    part.rename(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
