"""What this device reaches at best: matrix products of each precision, and copies through its memory.

Measured in the peer's own process, with its threads, just after the stages that are held against it.
Legend: n rows and columns of a square matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.device import stage_clock


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of what is measured: large enough that the device is filled, small enough to be quick."""

    n: int
    copy_bytes: int
    repetitions: int
    """Of a burst between two looks at the clock; the best of three bursts counts."""


SIZES = {"cpu": Sizes(512, 2**26, 1), "cuda": Sizes(8192, 2**31, 10)}
"""On a CPU 512 rows reach as much as 1024 in float32 and half as much again in bf16, where torch has no kernel of the
machine's and 1024 take ten seconds (2 cores of an AMD EPYC, torch 2.13, one thread)."""
BURSTS = 3
PRODUCTS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Operations a second of a large matrix product for each of PRODUCTS, and bytes a second read and written."""

    flops: dict[str, float]
    bytes: float


def measure(device: str, sizes: Sizes | None = None) -> Ceilings:
    """A large product in each precision (float32 without TF32) and a large copy."""
    sizes = sizes or SIZES[device]
    torch.backends.cuda.matmul.allow_tf32 = False
    return Ceilings({name: _product(device, dtype, sizes) for name, dtype in PRODUCTS.items()}, _copy(device, sizes))


def _product(device: str, dtype: torch.dtype, sizes: Sizes) -> float:
    # Random numbers: products with zeros draw less power and may clock higher.
    left_nn, right_nn = (torch.randn(sizes.n, sizes.n, device=device).to(dtype) for _ in range(2))
    out_nn = torch.empty_like(left_nn)
    seconds = _best(device, lambda: torch.mm(left_nn, right_nn, out=out_nn), sizes)
    return 2 * sizes.n**3 / seconds


def _copy(device: str, sizes: Sizes) -> float:
    source = torch.ones(sizes.copy_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * sizes.copy_bytes / _best(device, lambda: target.copy_(source), sizes)


def _best(device: str, call: Callable[[], object], sizes: Sizes) -> float:
    """Seconds of one call, on the clock of the stages, in the fastest burst after a warm-up."""
    clock = stage_clock(device)
    call()
    bursts: list[float] = []
    for _ in range(BURSTS):
        start = clock()
        for _ in range(sizes.repetitions):
            call()
        bursts.append((clock() - start) / sizes.repetitions)
    return min(bursts)
