"""What moves the weights: Muon for the matrices inside the transformers, AdamW for everything else.

Muon makes every direction of a matrix learn alike. The documented decisions say what that gains here.
source  layer-wise decay: arXiv:2106.08254, as arXiv:2304.02643, appendix A, has it
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from model.training.muon import Muon


class Optimiser:
    """Two optimisers behind one step, one learning rate and one state.

    layer_decay  factor of the rate from each block of `image_encoder` to the one before it; the patch embedding and the
                 position table are before the first
    """

    def __init__(self, model: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float) -> None:
        depth = 1 + max((_block(name) for name, _ in model.named_parameters()), default=-1)
        found: dict[tuple[str, float], list[Tensor]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            kind = "matrix" if _is_matrix(name, parameter) else "decayed" if parameter.dim() > 1 else "plain"
            steps = depth - _block(name) if ".image_encoder." in f".{name}" and ".neck." not in name else 0
            found[kind, layer_decay**steps].append(parameter)
        order = sorted(found, key=lambda key: (("matrix", "decayed", "plain").index(key[0]), -key[1]))
        self._scales = {
            "muon": [scale for kind, scale in order if kind == "matrix"],
            "adamw": [scale for kind, scale in order if kind != "matrix"],
        }
        matrices = [{"params": found[key]} for key in order if key[0] == "matrix"]
        others = [
            {"params": found[key], "weight_decay": weight_decay if key[0] == "decayed" else 0.0}
            for key in order
            if key[0] != "matrix"
        ]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": Muon(matrices, lr=learning_rate, weight_decay=weight_decay),
            "adamw": torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98)),
        }

    def step(self, rate: float) -> None:
        """One step at this learning rate, from the gradients that the parameters hold."""
        for name, part in self._parts.items():
            for group, scale in zip(part.param_groups, self._scales[name], strict=True):
                group["lr"] = rate * scale
            part.step()

    def rates(self) -> list[tuple[float, list[Tensor]]]:
        """The learning rate of the latest step and whose it was."""
        return [(group["lr"], group["params"]) for part in self._parts.values() for group in part.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """A linear map inside a transformer; position tables and the heads' last layers are none."""
    inside = ".blocks." in name or ".transformer." in name
    return parameter.dim() == 2 and inside and "rel_pos" not in name


def _block(name: str) -> int:
    """The encoder block that a parameter belongs to, -1 for none."""
    found = re.search(r"image_encoder\.(?:trunk\.)?blocks\.(\d+)\.", name)
    return int(found.group(1)) if found else -1
