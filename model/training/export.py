"""A finished training -> a weights file that model.load reads: calibrated, half precision, released key names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from model import sam2_layouts
from model.config import Sam2Config
from model.load import load_sam
from model.sam import Sam
from model.training.batches import held_out_batches
from model.training.calibrate import FIRST_SCENE, apply, fit
from model.training.evaluate import Evaluation, outputs_and_truths, summarise
from model.training.loop import Training, view_settings
from model.training.views import ViewSettings


def export_training(training: Training, path: Path) -> Evaluation:
    """Calibrate the averaged weights, write them with what they came from, return their figures as written."""
    sam = training.averaged().cpu()
    view = view_settings(training.settings, sam.config)
    return export_calibrated(sam, path, view, images=training.settings.evaluation_images, notes=notes_of(training))


def notes_of(training: Training) -> dict[str, str]:
    """What a training's weights came from. The file is given to others: what it began from has a name, and no place."""
    given = training.settings
    names = {name: Path(getattr(given, name)).name for name in ("start", "start_decoder", "source", "photographs")}
    settings = replace(given, **names)
    return {"training": json.dumps(asdict(settings)), "progress": json.dumps(asdict(training.progress))}


def export_calibrated(sam: Sam, path: Path, view: ViewSettings, *, images: int, notes: Mapping[str, str]) -> Evaluation:
    """Calibrate a model, which changes it, and write it; returns its figures as written.

    images  held-out scenes that it is calibrated on, and evaluated on
    """
    calibration = fit(sam, held_out_batches(view, images=images, batch=8, first=FIRST_SCENE))
    apply(sam, calibration)
    export_weights(sam, path, notes={**notes, "calibration": json.dumps(asdict(calibration))})
    written = load_sam(path.read_bytes(), expected=sam.config)
    return summarise(outputs_and_truths(written, held_out_batches(view, images=images, batch=8)))


def export_weights(sam: Sam, path: Path, *, notes: Mapping[str, str]) -> None:
    """Write a model as float16 safetensors with released key names, in one act.

    The metadata is `notes` and, as JSON under `config`, the model's sizes.
    raises  OverflowError if a weight does not fit float16
    """
    # Imported here so that model/ imports on a bare machine.
    from safetensors.torch import save_file

    named = sam2_layouts.released(sam.state_dict()) if isinstance(sam.config, Sam2Config) else sam.state_dict()
    weights = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in named.items()}
    for key, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise OverflowError(f"{key} does not fit float16; export an earlier checkpoint")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(weights, partial, {**notes, "config": json.dumps(asdict(sam.config))})
    partial.chmod(0o644)
    os.replace(partial, path)
