"""What moves the weights: Muon for the matrices inside the transformers, AdamW for everything else.

Muon makes every direction of a matrix learn alike; what that gains here is in the README's decisions.
source  Muon: https://kellerjordan.github.io/posts/muon and arXiv:2502.16982, whose scaling lets both share one rate
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Optimiser:
    """Two optimisers behind one step, one learning rate and one state."""

    def __init__(self, model: nn.Module, *, learning_rate: float, weight_decay: float) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if _is_matrix(name, p)]
        decayed = [p for name, p in named if p.dim() > 1 and not _is_matrix(name, p)]
        plain = [p for _, p in named if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            "adamw": torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98)),
        }

    def step(self, rate: float) -> None:
        """One step at this learning rate, from the gradients that the parameters hold."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """A linear map inside a transformer; position tables and the heads' last layers are none."""
    inside = ".blocks." in name or ".transformer." in name
    return parameter.dim() == 2 and inside and "rel_pos" not in name
