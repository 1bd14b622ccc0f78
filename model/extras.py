"""Tensors that files carry beside a model's own and that change no mask: dropped by their exact names, and told.

Owns which names those are. Any other name that a model does not have is refused where the keys are compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.config import ModelConfig, RepVitConfig, TinyVitConfig
from model.opening import CheckpointError
from model.sam import PIXEL_MEAN, PIXEL_STD
from model.tiny_vit import CLASSIFIER

_NORMALISATION = {"pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}


def without_extras(
    released: Mapping[str, Tensor], config: ModelConfig, *, wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors that are not extras, and what was dropped, one sentence a kind.

    wanted  the model's own tensors
    raises  CheckpointError for another normalisation than the one that every image gets here
    """
    kinds: dict[str, set[str]] = {"the normalisation that is used anyway": set(_NORMALISATION)}
    if isinstance(config, TinyVitConfig):
        kinds["the classifier of ImageNet"] = {f"image_encoder.{name}" for name in CLASSIFIER}
    if isinstance(config, TinyVitConfig | RepVitConfig):
        kinds["the counters of batches"] = {
            f"{name.removesuffix('running_var')}num_batches_tracked" for name in wanted if name.endswith(".running_var")
        }
    kept, notes = dict(released), list[str]()
    for kind, names in kinds.items():
        found = [name for name in released if name in names]
        for name in found:
            _check_normalisation(name, kept.pop(name))
        if found:
            listed = found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"
            notes.append(f"{kind} ({len(found)}: {listed})")
    return kept, tuple(notes)


def _check_normalisation(name: str, stored: Tensor) -> None:
    if name not in _NORMALISATION:
        return
    ours_3 = torch.tensor(_NORMALISATION[name])
    if stored.numel() != len(ours_3) or not torch.equal(stored.flatten(), ours_3.to(stored.dtype)):
        told = ", ".join(f"{value:g}" for value in stored.flatten()[:3].tolist())
        raise CheckpointError(
            f"the checkpoint was trained with {name} {told} and not with {', '.join(map(str, _NORMALISATION[name]))}, "
            "the only one here; take the program that trained it, or train it on with the usual one"
        )
