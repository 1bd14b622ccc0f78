"""A finished training -> a weights file that model.load reads: half precision, released key names."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from model.training.loop import Training


def export_weights(training: Training, path: Path) -> None:
    """Write the averaged weights as float16 safetensors.

    Metadata, all text: `config` the model's sizes and `training` the settings (JSON), `steps`, `images`.
    raises  OverflowError if a weight does not fit float16
    """
    # Imported here so that model/ imports on a bare machine.
    from safetensors.torch import save_file

    weights = {key: value.to(torch.float16).contiguous() for key, value in training.average.items()}
    for key, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise OverflowError(f"{key} does not fit float16; export an earlier checkpoint")
    metadata = {
        "config": json.dumps(asdict(training.sam.config)),
        "training": json.dumps(asdict(training.settings)),
        "steps": str(training.progress.step),
        "images": str(training.progress.images),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(weights, partial, metadata)
    os.replace(partial, path)
