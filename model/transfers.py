"""Numbers of the host on their way to a device, without a wait for it.

A copy from ordinary memory makes the host wait until all that is queued on a GPU is done. One from pinned memory is
queued like a kernel. torch keeps the pinned memory for reuse, and not before the copy has passed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pixels = npt.NDArray[np.uint8] | Tensor
"""RGB (H, W, 3) 8-bit, of the host or on the device of a model; maybe a view of a larger image."""


def sent(array: npt.NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """The same numbers on `device`; the array may be changed at once, except on a CPU, where it is shared."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def on_device(pixels_HW3: Pixels, device: torch.device) -> Tensor:
    """Those of the host are sent there, and are then contiguous."""
    return pixels_HW3 if isinstance(pixels_HW3, Tensor) else sent(np.ascontiguousarray(pixels_HW3), device)
