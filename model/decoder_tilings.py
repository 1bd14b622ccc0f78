"""How the work of the fused decoder's kernels is cut into programs: for each kernel, how much a program takes at once.

Those here were the fastest of those tried on an H100. `tests/gpu/tilings_to_try.py` has the others. They change no
result but its rounding.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tiling:
    """What a program of a kernel does.

    positions  at once
    warps      that do it
    stages     of what is loaded ahead
    others     tokens of `look_at_shared`, channels of `measure`, heads of the others
    prompts    at once
    programs   for each prompt, or each prompt and group of heads, where positions are shared out among them
    """

    positions: int
    warps: int
    stages: int = 2
    others: int = 1
    prompts: int = 1
    programs: int = 1


@dataclass(frozen=True, slots=True)
class Tilings:
    """Of all kernels; `python -m tests.gpu.decoder_on_a_card` tries others."""

    look_at_shared: Tiling = Tiling(positions=128, warps=4, stages=3, others=64)
    answer_from_shared: Tiling = Tiling(positions=32, warps=4, prompts=8)
    measure: Tiling = Tiling(positions=64, warps=4, stages=3, others=64)
    look: Tiling = Tiling(positions=64, warps=4, others=2)
    last_look: Tiling = Tiling(positions=64, warps=4, others=4)
    answer: Tiling = Tiling(positions=64, warps=4, others=2, programs=2)
    form_masks: Tiling = Tiling(positions=128, warps=8, stages=1)


TILINGS = Tilings()
