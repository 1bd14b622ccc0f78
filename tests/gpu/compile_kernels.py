"""Compile the kernels for an H100, and print as JSON what their machine code needs. No GPU is asked.

In a process of its own: where Triton interprets, it compiles nothing. `docs/gpu.md` has its figures.

    python -m tests.gpu.compile_kernels
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pipeline.masks import gpu_kernels as kernels
from pipeline.masks.on_gpu import CELLS, COLUMNS, SIDE, WARPS

H100 = GPUTarget("cuda", 90, 32)
POINTERS = {
    **dict.fromkeys(("logits", "y_weight", "x_weight"), "*fp32"),
    **dict.fromkeys(("index", "tally", "words", "before", "ends", "total", "y_cell", "x_cell"), "*i32"),
    "kinds": "*i8",
    "offset": "fp32",
}
"""All other arguments are sizes."""
UNDER = 8
"""Cells beneath a tile of 32 pixels, of an image of 1500 x 2250: 6, in a power of two."""
LAUNCHES: dict[str, tuple[dict[str, int], int]] = {
    "decide_tiles": ({"SIDE": SIDE, "UNDER": UNDER, "TILES": CELLS // UNDER}, 4),
    "measure_strips": ({"SIDE": SIDE}, WARPS),
    "find_ends": ({"SIDE": SIDE}, WARPS),
    "sum_columns": ({"COLUMNS": COLUMNS}, 4),
    "write_ends": ({"SIDE": SIDE}, 4),
}
"""Constants and warps, as `on_gpu` launches them."""


def compiled(name: str, constants: dict[str, int], warps: int) -> dict[str, Any]:
    """Registers, instructions of spills, and those of a product and sum in one that Triton made by itself."""
    kernel: Any = getattr(kernels, name)
    names: list[str] = kernel.arg_names
    signature = {each: "constexpr" if each in constants else POINTERS.get(each, "i32") for each in names}
    values = {(names.index(each),): value for each, value in constants.items()}
    # Pointers of torch are multiples of 16; sizes are not specialised.
    attributes = {(i,): [["tt.divisibility", 16]] for i, each in enumerate(names) if signature[each].startswith("*")}
    source = ASTSource(kernel, signature, values, attributes)
    built: Any = triton.compile(source, target=H100, options={"num_warps": warps, "enable_fp_fusion": False})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage, code = (_dumped(option, file.name) for option in ("--dump-resource-usage", "--dump-sass"))
    found = re.search(r"REG:(\d+)", usage)
    assert found, usage
    return {"registers": int(found[1]), "spills": len(re.findall(r"\b(?:STL|LDL)\b", code)), "fma": _fused(code)}


def _fused(code: str) -> int:
    return len(re.findall(r"\bFFMA\b", code))


def _dumped(option: str, path: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return subprocess.run([tool, option, path], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    json.dump({name: compiled(name, *launch) for name, launch in LAUNCHES.items()}, sys.stdout, indent=1)
