"""A finished model -> a weights file that model.load reads: half precision, released key names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from model.sam import Sam


def export_weights(sam: Sam, path: Path, *, notes: Mapping[str, str]) -> None:
    """Write a model as float16 safetensors, in one act.

    The metadata is `notes` and, as JSON under `config`, the model's sizes.
    raises  OverflowError if a weight does not fit float16
    """
    # Imported here so that model/ imports on a bare machine.
    from safetensors.torch import save_file

    weights = {key: value.detach().to(torch.float16).contiguous() for key, value in sam.state_dict().items()}
    for key, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise OverflowError(f"{key} does not fit float16; export an earlier checkpoint")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(weights, partial, {**notes, "config": json.dumps(asdict(sam.config))})
    partial.chmod(0o644)
    os.replace(partial, path)
