"""Triton's kernels on the pretended device: interpreted, one launch each, and exact where the interpreter is not.

`tests/conftest.py` asks for the interpreter before Triton is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import triton.language as tl
from torch.utils._pytree import tree_map
from triton._C.libtriton import ir
from triton.runtime import interpreter
from triton.runtime.interpreter import (
    GridExecutor,
    InterpretedFunction,
    InterpreterBuilder,
    TensorHandle,
    interpreter_builder,
)

from pipeline.masks.compiled import compiled, fma
from tests.gpu.pretended import inner_of, ran
from tests.gpu.waits import STATE

Values = npt.NDArray[np.float32]
CAST = InterpreterBuilder.cast_impl
BF16X3 = ir.INPUT_PRECISION.BF16x3


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


def _create_dot(_builder: Any, a: TensorHandle, b: TensorHandle, d: TensorHandle, precision: Any, _most: int) -> Any:
    """As tensor cores do it: products of bfloat16 are exact in float32, and operands of split products are split.

    The interpreter's own takes bfloat16 for whole numbers, and split products for plain ones.
    """
    left, right = _as_float32(a), _as_float32(b)
    if precision != BF16X3:
        return TensorHandle(np.matmul(left, right) + d.data, d.dtype.scalar)
    (high, low), (high_right, low_right) = _split(left), _split(right)
    small = np.matmul(low, high_right) + np.matmul(high, low_right)
    return TensorHandle(small + np.matmul(high, high_right) + d.data, d.dtype.scalar)


def _as_float32(operand: TensorHandle) -> Values:
    if operand.dtype.scalar == tl.bfloat16:
        return (operand.data.astype(np.uint32) << 16).view(np.float32)
    return operand.data.astype(np.float32)


def _cast(builder: Any, source: TensorHandle, target: Any) -> TensorHandle:
    """To bfloat16 rounded, as a GPU does it. The interpreter's own cuts, which loses a bit of each part of a number."""
    kinds = source.dtype.scalar, target.scalar
    if kinds == (tl.bfloat16, tl.float32):
        return TensorHandle(_as_float32(source), tl.float32)
    if kinds == (tl.float32, tl.bfloat16):
        bits = np.ascontiguousarray(source.data).view(np.uint32)
        return TensorHandle(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16), tl.bfloat16)
    return CAST(builder, source, target)


def _split(values: Values) -> tuple[Values, Values]:
    """As two bfloat16, each in float32."""
    whole = torch.from_numpy(values)
    high = whole.bfloat16().float()
    return high.numpy(), (whole - high).bfloat16().float().numpy()


@contextmanager
def interpreted_kernels() -> Iterator[None]:
    """To be used with a pretended device."""
    call, remap = GridExecutor.__call__, interpreter._patch_lang
    remapped: set[str] = set()

    def launched(executor: Any, *args: Any, **options: Any) -> None:
        STATE.launch()
        remapped.clear()
        ran(call, executor, *tree_map(inner_of, args), **tree_map(inner_of, options))

    def called(function: Any, *args: Any, **options: Any) -> Any:
        """A function of a kernel. The interpreter's own way remaps Triton's modules in every call, which takes longer
        than the rest; here each module of functions is remapped once in a launch."""
        module = function.fn.__module__
        if module not in remapped:
            remapped.add(module)
            remap(function.fn)
        return function.rewrite()(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpretedFunction, "__call__", called)
        patch.setattr(GridExecutor, "__call__", launched)
        patch.setattr(InterpreterBuilder, "create_fma", _create_fma)
        patch.setattr(InterpreterBuilder, "create_dot", _create_dot)
        patch.setattr(InterpreterBuilder, "cast_impl", _cast)
        allowed = (*interpreter_builder.options.allowed_dot_input_precisions, "bf16x3")
        # Its checks for overflow are computed and, since it does not debug, not looked at.
        options = replace(interpreter_builder.options, allowed_dot_input_precisions=allowed, sanitize_overflow=False)
        patch.setattr(interpreter_builder, "options", options)
        yield
