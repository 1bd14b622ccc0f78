"""What a training's log says of the steps since its last line."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class Means:
    """Running means between two lines of the log. They stay on the device until a line asks for them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = self._images = 0
        self._since = time.monotonic()

    def add(self, measured: dict[str, Tensor], images: int) -> None:
        for name, value in measured.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        self._images += images

    def check(self, step: int) -> None:
        """raises  FloatingPointError if the training has diverged"""
        if not all(torch.isfinite(total) for total in self._sums.values()):
            raise FloatingPointError(
                f"a figure is no number at step {step}: go on from the last checkpoint with a lower learning_rate"
            )

    def line(self) -> str:
        """The means, and how fast it went."""
        rate = self._images / (time.monotonic() - self._since)
        parts = [f"{name} {float(total) / self._count:.4g}" for name, total in self._sums.items()]
        return f"{', '.join(parts)}, {rate:.1f} images/s"
