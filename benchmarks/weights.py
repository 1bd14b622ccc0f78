"""The checkpoint file that all peers of a model load: given, bundled, or random and calibrated.

Random weights stand in where there are none: cost depends on shapes and on how many masks survive, not on what the
masks show. They are calibrated so that masks survive (tests/official.py), and the tables say that they are random.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from model.config import CONFIGS
from model.load import BUNDLED, load_sam
from model.training.scenes import HELD_OUT_FROM, draw_scene

SEED = 0
CALIBRATION_SCENE = HELD_OUT_FROM + 77
CALIBRATION_HW = (683, 1024)


@dataclass(frozen=True, slots=True)
class Weights:
    """One model's checkpoint under the released names."""

    model: str
    path: Path
    sha256: str
    kind: str
    """bundled, given or random."""


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
    path = folder / f"{model}-random-{SEED}.pth"
    if not path.exists():
        _save(_random(model), path)
    return Weights(model, path, _sha256(path), "random")


@torch.no_grad()
def _random(model: str) -> dict[str, torch.Tensor]:
    # Imported here: only random weights need the released code in this process.
    from tests.official import calibrated_official

    image_HW3 = draw_scene(0, CALIBRATION_SCENE, size_hw=CALIBRATION_HW).rgb_HW3
    return calibrated_official(CONFIGS[model], image_HW3, seed=SEED, smooth=True).state_dict()


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(tensors, part)
    part.rename(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
