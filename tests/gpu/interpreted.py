"""Triton's kernels on the pretended device: interpreted, one launch each, and exact where the interpreter is not.

`tests/conftest.py` asks for the interpreter before Triton is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from torch.utils._pytree import tree_map
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

from pipeline.masks.compiled import compiled, fma
from tests.gpu.pretended import inner_of
from tests.gpu.waits import STATE

Values = npt.NDArray[np.float32]


@compiled
def fused(x: Values, y: Values, z: Values) -> Values:
    """x y + z, rounded once: the instruction that compiled code has for it."""
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = fma(x[i], y[i], z[i])
    return out


def _create_fma(_builder: Any, x: TensorHandle, y: TensorHandle, z: TensorHandle) -> TensorHandle:
    """In place of the interpreter's own, which rounds the product too (up to 3.8)."""
    arrays = np.broadcast_arrays(x.data, y.data, z.data)
    flat = fused(*(np.ascontiguousarray(array, dtype=np.float32).ravel() for array in arrays))
    return TensorHandle(flat.reshape(arrays[0].shape), z.dtype.scalar)


@contextmanager
def interpreted_kernels() -> Iterator[None]:
    """To be used with a pretended device."""
    call = GridExecutor.__call__

    def launched(executor: Any, *args: Any, **options: Any) -> None:
        STATE.launch()
        call(executor, *tree_map(inner_of, args), **tree_map(inner_of, options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GridExecutor, "__call__", launched)
        patch.setattr(InterpreterBuilder, "create_fma", _create_fma)
        yield
