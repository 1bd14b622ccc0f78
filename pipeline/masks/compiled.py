"""How functions of this package are compiled: once per machine where a cache can be written, without Python's lock.

Owns the decorator and the one instruction that Python has no spelling for. Threads of a caller run compiled functions
side by side; none of them starts threads of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nb
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile at the first call; later processes load the result if the package or the user's cache can be written.

    No `fastmath`: sums and products round as they are written, on every machine.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no folder to cache in: a read-only installation without a home
        return numba.njit(nogil=True)(function)


@intrinsic
def fma(_typing: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """float32 a * b + c, rounded once; only inside compiled functions."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        single = ir.FloatType()
        kind = ir.FunctionType(single, [single] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.f32"), arguments)

    return nb.float32(nb.float32, nb.float32, nb.float32), generate
