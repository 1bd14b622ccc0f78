"""Other tilings of the decoder's kernels, which `decoder_on_a_card` times beside those that are used."""

from __future__ import annotations

from model.decoder_tilings import Tiling

OTHERS: dict[str, tuple[Tiling, ...]] = {
    "look_at_shared": (
        Tiling(positions=128, others=64, warps=4, stages=3),
        Tiling(positions=128, others=128, warps=8),
    ),
    "answer_from_shared": (
        Tiling(positions=64, prompts=8, warps=8),
        Tiling(positions=64, prompts=8, warps=4, stages=1),
        Tiling(positions=64, prompts=4, warps=4),
        Tiling(positions=32, prompts=8, warps=4),
    ),
    "measure": (
        Tiling(positions=64, others=64, warps=8, stages=3, programs=2),
        Tiling(positions=128, others=64, warps=8, stages=3, programs=2),
        Tiling(positions=64, others=64, warps=4, stages=3, programs=1),
        Tiling(positions=64, others=64, warps=4, stages=3, programs=4),
    ),
    "look": (
        Tiling(positions=64, others=2, warps=4),
        Tiling(positions=64, others=2, warps=4, stages=3),
        Tiling(positions=128, others=2, warps=8),
        Tiling(positions=64, others=4, warps=4, stages=3),
        Tiling(positions=32, others=4, warps=4),
    ),
    "last_look": (
        Tiling(positions=64, others=4, warps=8),
        Tiling(positions=64, others=4, warps=4, stages=2),
        Tiling(positions=64, others=4, warps=4, stages=3),
        Tiling(positions=64, others=8, warps=8, stages=1),
        Tiling(positions=128, others=4, warps=8, stages=1),
    ),
    "answer": (
        Tiling(positions=64, others=2, warps=4, stages=2, programs=2),
        Tiling(positions=64, others=2, warps=4, stages=3, programs=2),
        Tiling(positions=64, others=2, warps=4, stages=1, programs=2),
        Tiling(positions=64, others=2, warps=4, stages=2, programs=1),
        Tiling(positions=32, others=4, warps=4, stages=2, programs=2),
        Tiling(positions=128, others=2, warps=8, stages=2, programs=2),
    ),
    "form_masks": (
        Tiling(positions=128, warps=8, stages=2),
        Tiling(positions=64, warps=4, stages=1),
    ),
}
"""By the kernel's name in `Tilings`."""
