"""How functions of this package are compiled: once per machine where a cache can be written, without Python's lock.

Owns the decorator and the one instruction that Python has no spelling for. Threads of a caller run compiled functions
side by side; none of them starts threads of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import ir  # pyright: ignore[reportMissingTypeStubs] - it has none
from numba.core import cgutils as typed_cgutils
from numba.core import types as nb
from numba.extending import intrinsic

cgutils: Any = typed_cgutils  # its annotations are partial

F = TypeVar("F", bound=Callable[..., Any])

_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def compiled(function: F) -> F:
    """Compile at the first call; later processes load the result if the package or the user's cache can be written.

    No `fastmath`: sums and products round as they are written, on every machine.
    """
    try:
        dispatcher: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no folder to cache in: a read-only installation without a home
        plain: Any = numba.njit(nogil=True)(function)
        return plain
    # numba looks for changes in a function's own file alone; what it calls from others is compiled into it.
    dispatcher._cache._cache_file._source_stamp = _SOURCES
    return dispatcher


def _fma(_typing: Any, _a: Any, _b: Any, _c: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        single = ir.FloatType()
        kind = ir.FunctionType(single, [single] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.f32"), arguments)

    return nb.float32(nb.float32, nb.float32, nb.float32), generate


fma: Any = intrinsic(_fma)
"""float32 a * b + c, rounded once; only inside compiled functions."""
