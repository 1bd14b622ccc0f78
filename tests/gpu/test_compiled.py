"""What Triton makes of the kernels for an H100. No GPU is asked: what one says of them is in docs/gpu.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.masks.on_gpu import SIDE, WARPS

ROOT = Path(__file__).parent.parent.parent
OF_MASKS = "decide_tiles", "measure_strips", "find_ends", "sum_columns", "write_ends"
OF_THE_ENCODER = "attend 64, 1", "attend 64, 3"
"""The largest; `compile_kernels` without names has them all."""
OF_THE_DECODER = "measure T=7 LAYER=1", "form_masks T=7 FINE=False", "form_masks T=8 FINE=True"
"""Those that need the most registers and spill none."""


@pytest.fixture(scope="module")
def read() -> dict[str, dict[str, int] | None]:
    """What `compile_kernels` prints; not in this process, in which Triton interprets."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.gpu.compile_kernels", *OF_MASKS, *OF_THE_ENCODER, *OF_THE_DECODER]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(read: dict[str, dict[str, int] | None]) -> dict[str, dict[str, int]]:
    """Of the kernels that were compiled."""
    return {name: needs for name, needs in read.items() if needs is not None}


def test_the_compiler_reads_the_kernels_of_all_models(read: dict[str, dict[str, int] | None]) -> None:
    """The interpreter takes code that the compiler refuses: masks of SAM 2 were once formed here alone. Those that are
    not compiled are read by the compiler's first step."""
    assert {"form_masks T=7 FINE=False", "form_masks T=8 FINE=True", "look T=8", "attend 14, 1"} <= set(read)


def test_the_kernels_compile_without_spills(found: dict[str, dict[str, int]]) -> None:
    """All but one: in split products, attention over ViT-H's grid keeps some registers in memory, outside its loop."""
    spills = {name: need["spills"] for name, need in found.items()}
    assert spills.pop("attend 64, 3") <= 20
    assert not any(need["in loops"] for need in found.values())
    assert spills == dict.fromkeys(spills, 0)
    assert max(found[name]["registers"] for name in OF_MASKS) <= 200
    assert found["attend 64, 1"]["registers"] <= 224


def test_the_compiler_fuses_no_product_and_sum_of_a_pixel(found: dict[str, dict[str, int]]) -> None:
    """A pixel takes five steps of three fused products each; `find_ends` has one more for a bottom row."""
    fused_of = {name: found[name]["fma"] for name in OF_MASKS if found[name]["fma"]}
    pixels = SIDE**2 // (32 * WARPS)
    assert fused_of == {"measure_strips": 5 * 3 * pixels, "find_ends": 5 * 3 * (pixels + 1)}
