"""Attention of some queries to some keys, as torch has it, but for a training on a CPU.

Legend: H heads, Q queries, K keys, d channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q_HQd: Tensor, k_HKd: Tensor, v_HKd: Tensor) -> Tensor:
    """(..., Q, d). Where a CPU has to go back through it, plain products: torch's own guard rows without any key, of
    which there are none, and that took a fifth of a training step."""
    if q_HQd.device.type == "cpu" and torch.is_grad_enabled():
        return ((q_HQd * q_HQd.shape[-1] ** -0.5) @ k_HKd.transpose(-2, -1)).softmax(dim=-1) @ v_HKd
    return F.scaled_dot_product_attention(q_HQd, k_HKd, v_HKd)
