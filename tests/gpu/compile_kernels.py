"""Compile the kernels for an H100, and print as JSON what their machine code needs. No GPU is asked.

In a process of its own: where Triton interprets, it compiles nothing. `docs/gpu.md` has its figures. All are read by
the compiler; those of a NAME, or all, are compiled, and the others have null for figures.

    python -m tests.gpu.compile_kernels [NAME ...]

The encoder's are those of ViT-H: within windows of 14 tokens or over a grid of 64, of 1 or 3 parts.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import triton
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction

from model.config import CONFIGS, MODELS
from model.first_values import without_first_values
from model.fused_encoder import FusedEncoder, standardised
from model.image_encoder import ImageEncoder
from model.point_decoder import PointDecoder
from model.precisions import FORMS
from model.sam import Sam
from pipeline.masks import gpu_kernels as kernels
from pipeline.masks.on_gpu import CELLS, COLUMNS, SIDE, TILES, WARPS


@dataclass(frozen=True)
class Launch:
    """types    of arguments, where they are not sizes
    options  of the compiler
    """

    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, Any]


FUSION = "enable_fp_fusion"
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
INSTRUCTION = 16
"""Bytes of one."""
SPILL = re.compile(r"\b(?:STL|LDL)\b")
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
    "measure_strips": ({"SIDE": SIDE, "TILES": TILES}, WARPS),
    "find_ends": ({"SIDE": SIDE}, WARPS),
    "sum_columns": ({"COLUMNS": COLUMNS}, 4),
    "write_ends": ({"SIDE": SIDE}, 4),
}
"""Constants and warps, as `on_gpu` launches them."""


def compiled(launches: dict[str, Launch]) -> dict[str, dict[str, int]]:
    """Registers, instructions of spills, and how many of them are in a loop, instructions of a product and sum in one,
    and bytes of shared memory."""
    built = {name: _built(launch) for name, launch in launches.items()}
    codes = {name: _code(each.asm["cubin"]) for name, each in built.items()}
    # All at once: to begin takes the disassembler half a second.
    instructions, begin = iter(_disassembled(b"".join(codes.values()))), 0
    needs: dict[str, dict[str, int]] = {}
    for name, code in codes.items():
        each = list(islice(instructions, len(code) // INSTRUCTION))
        own = "\n".join(each)
        needs[name] = {
            "registers": _registers(built[name].asm["cubin"]),
            "spills": len(SPILL.findall(own)),
            "in loops": _spills_in_loops(each, begin),
            "fma": len(re.findall(r"\bFFMA\b", own)),
            "shared": built[name].metadata.shared,
        }
        begin += len(code)
    return needs


def _spills_in_loops(instructions: list[str], begin: int) -> int:
    """Between a branch back and where it leads. `begin` is the first one's address."""
    found: set[int] = set()
    for i, instruction in enumerate(instructions):
        branch = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", instruction)
        if branch:
            first = (int(branch[1], 16) - begin) // INSTRUCTION
            found.update(j for j in range(first, i) if SPILL.search(instructions[j]))
    return len(found)


def _built(launch: Launch) -> Any:
    return triton.compile(_source(launch), target=H100, options=launch.options)


def read(launch: Launch) -> None:
    """By the compiler's first step alone, which is where most of what it refuses is refused: some 0.05 s.

    raises  triton.compiler.errors.CompilationError
    """
    backend: Any = make_backend(H100)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    options: Any = backend.parse_options(launch.options)
    functions, modules = backend.get_codegen_implementation(options), backend.get_module_map()
    _source(launch).make_ir(H100, options, functions, modules, context)


def _source(launch: Launch) -> Any:
    names: list[str] = launch.kernel.arg_names
    signature = {each: launch.types.get(each, "i32") for each in names} | dict.fromkeys(launch.constants, "constexpr")
    values = {(names.index(each),): value for each, value in launch.constants.items()}
    # Pointers of torch are multiples of 16; sizes are not specialised.
    attributes = {(i,): [["tt.divisibility", 16]] for i, each in enumerate(names) if signature[each].startswith("*")}
    return ASTSource(launch.kernel, signature, values, attributes)


def _code(cubin: bytes) -> bytes:
    """The section of an ELF file that holds a kernel's instructions."""
    (headers,), (size, count, names) = struct.unpack_from("<Q", cubin, 0x28), struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, headers + i * size) for i in range(count)]
    [found] = [each for each in sections if cubin.startswith(b".text.", sections[names][4] + each[0])]
    return cubin[found[4] : found[4] + found[5]]


def _disassembled(code: bytes) -> list[str]:
    """Instructions of an H100."""
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(code)
        file.flush()
        listing = _said("nvdisasm", "--binary", "SM90", file.name)
    instructions = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(.*;)", listing, re.MULTILINE)
    assert len(instructions) == len(code) // INSTRUCTION
    return instructions


def _registers(cubin: bytes) -> int:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _said("cuobjdump", "--dump-resource-usage", file.name)
    found = re.search(r"REG:(\d+)", usage)
    assert found, usage
    return int(found[1])


def mask_launches() -> dict[str, Launch]:
    return {
        name: Launch(getattr(kernels, name), POINTERS, constants, {"num_warps": warps, "enable_fp_fusion": False})
        for name, (constants, warps) in LAUNCHES.items()
    }


@contextmanager
def noted(name_of: Callable[[Any, dict[str, Any], dict[str, str]], str]) -> Iterator[dict[str, Launch]]:
    """The launches of what runs on `meta` tensors meanwhile, by a name made of kernel, constants and types."""
    made: dict[str, Launch] = {}

    def note(kernel: Any, *args: Any, **options: Any) -> None:
        names: list[str] = kernel.arg_names
        given = dict(zip(names, args, strict=False)) | {name: options[name] for name in names if name in options}
        constants = {each.name: given.pop(each.name) for each in kernel.params if each.is_constexpr}
        types = {name: _type(value) for name, value in given.items()}
        chosen = {name: value for name, value in options.items() if name in ("num_warps", "num_stages", FUSION)}
        made[name_of(kernel, constants, types)] = Launch(kernel, types, constants, chosen)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(JITFunction, "run", note)
        yield made


def encoder_launches() -> dict[str, Launch]:
    """Of ViT-H's encoder, as `fused_encoder` launches them."""

    def name_of(kernel: Any, constants: dict[str, Any], types: dict[str, str]) -> str:
        what = f" {constants['w']}" if "w" in constants else ""
        form = f", {constants['PARTS']}" if "PARTS" in constants else f", {types.get('qkv', '')}"
        return f"{kernel.__name__}{what}{form}"

    config = replace(CONFIGS["vit_h"], depth=2, global_blocks=(1,))
    with torch.device("meta"), without_first_values():
        sam, images_13SS = Sam(config), torch.empty(1, 3, 1024, 1024)
        pixels_HW3 = torch.empty(1500, 2250, 3, dtype=torch.uint8)
    with noted(name_of) as made:
        for form in FORMS.values():
            FusedEncoder(cast(ImageEncoder, sam.image_encoder), form)(images_13SS)
        standardised(pixels_HW3, (683, 1024), sam, images_13SS[0])
    return made


def decoder_launches() -> dict[str, Launch]:
    """Of the decoder of released sizes, SAM's and with T=8 SAM 2's, as `fused_decoder` launches them. `look` is met
    twice: for all tokens of a prompt, and for the wanted ones; `measure` after each layer."""
    sizes = "T", "LAYER", "FINE", "PLACES"

    def name_of(kernel: Any, constants: dict[str, Any], _types: dict[str, str]) -> str:
        return " ".join([kernel.__name__, *(f"{size}={constants[size]}" for size in sizes if size in constants)])

    with noted(name_of) as made:
        for config in (replace(CONFIGS["vit_b"], depth=1, global_blocks=(0,)), MODELS["sam2.1_tiny"]):
            with torch.device("meta"), without_first_values():
                sam, coords_P2 = Sam(config), torch.empty(256, 2)
                embedding_1Cgg, fine = torch.empty(1, 256, 64, 64), None
                if config.fine_features:
                    fine = torch.empty(1, 32, 256, 256), torch.empty(1, 64, 128, 128)
                decoder = PointDecoder(sam, "bf16x3")
                shared = decoder.share(embedding_1Cgg, fine)
                decoder.decode(shared, coords_P2, pred_iou_thresh=0, cells_hw=(43, 64))
    return made


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def _said(tool: str, *arguments: str) -> str:
    """By one of the tools that Triton brings."""
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / tool
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    launches = mask_launches() | encoder_launches() | decoder_launches()
    chosen = sys.argv[1:] or list(launches)
    for name in launches.keys() - set(chosen):
        read(launches[name])
    needs = compiled({name: launches[name] for name in chosen})
    json.dump({name: needs.get(name) for name in launches}, sys.stdout, indent=1)
