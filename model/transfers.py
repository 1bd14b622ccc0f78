"""Numbers of the host on their way to a device, without a wait for it.

A copy from ordinary memory makes the host wait until all that is queued on a GPU is done. One from pinned memory is
queued like a kernel. torch keeps the pinned memory for reuse, and not before the copy has passed.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def sent(array: npt.NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """The same numbers on `device`; the array may be changed at once, except on a CPU, where it is shared."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
