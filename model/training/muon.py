"""Muon, an optimiser for matrices: each step moves along the nearest orthogonal matrix to the averaged gradient.

torch.optim.Muon works in bfloat16 and one matrix at a time. A CPU without bfloat16 emulates it, which took most of a
training step. Here matrices of one shape go together, in bfloat16 only where that is fast.
source  https://kellerjordan.github.io/posts/muon; the factor of the rate is that of arXiv:2502.16982, section 2.2, with
        which one learning rate serves Muon and AdamW
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ROUNDS = 5
"""Of the iteration."""
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Its polynomial's coefficients, which bring singular values near 1 fast rather than exactly."""


class Muon(torch.optim.Optimizer):
    """For parameters with two dimensions; the groups' keys are lr and weight_decay. Without a gradient none moves."""

    def __init__(self, parameters: Iterable[dict[str, Any]], *, lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append((parameter, self._averaged(parameter, parameter.grad)))
            for shape, averaged in alike.items():
                updates = orthogonal(torch.stack([gradient for _, gradient in averaged]), _dtype(averaged[0][1].device))
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for (parameter, _), update in zip(averaged, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-rate)

    def _averaged(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """The gradient, averaged over the steps and one step ahead (Nesterov)."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(average, MOMENTUM)


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, a, b) with the singular vectors as they are and every singular value near 1 (about 0.7 to 1.2).

    dtype  to compute in
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    wide = (wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(dtype)
    first, third, fifth = QUINTIC
    for _ in range(ROUNDS):
        square = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(square, square, square, beta=third, alpha=fifth), wide, beta=first)
    return (wide if matrices.shape[1] <= matrices.shape[2] else wide.mT).float()


def _dtype(device: torch.device) -> torch.dtype:
    """bfloat16, in which the iteration was published, where it is fast (a tenth of a step on a CPU)."""
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bfloat16 else torch.float32
