"""What `model.precision` may name, and how each writes the operands of matrix products.

fp32    every product in float32: the masks that everything else is held to
bf16x3  each float32 operand as the sum of two of bfloat16, x = h + l, and products as h h' + l h' + h l', summed in
        float32 in one product three times as deep. Float32 in effect, at tensor cores' speed. A CPU, which has no
        use for it, computes fp32
bf16    the image encoder's products of bfloat16 operands; its norms and residuals stay float32

On a GPU the decoder's products with the image are those of `bf16x3` in both of the latter (`fused_decoder`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PRECISIONS = {"fp32": torch.float32, "bf16x3": torch.float32, "bf16": torch.bfloat16}
"""What the encoder's weights are kept in, where nothing is fused."""


@dataclass(frozen=True, slots=True)
class Form:
    """An operand is written in so many parts of that type, side by side: h alone, or h, l and h again."""

    parts: int
    dtype: torch.dtype = torch.bfloat16

    @property
    def whole(self) -> torch.dtype:
        """Of what a product gives."""
        return self.dtype if self.parts == 1 else torch.float32

    def operand(self, T: int, K: int, like: Tensor) -> Tensor:
        """Room for one of T rows and K columns."""
        return torch.empty(T, self.parts * K, dtype=self.dtype, device=like.device)


FORMS = {"bf16x3": Form(3), "bf16": Form(1)}
"""Of the precisions for tensor cores."""
