"""Who may import whom, held by reading the source with the standard library alone."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import model
import pipeline

ROOT = Path(__file__).parent.parent
ROOMS = ("model", "pipeline", "jobs", "conf", "tests", "benchmarks")

SHARED = {
    "pipeline.records",
    "pipeline.settings",
    "pipeline.errors",
    "pipeline.progress",
    "pipeline.signals",
    "pipeline.plain_values",
    "pipeline.texts",
} | {"pipeline"}
BELOW: dict[str, tuple[str, ...]] = {
    "model": (),
    "pipeline.masks": (),
    "pipeline.storage": (),
    "pipeline.plan": ("pipeline.masks", "pipeline.storage"),
    "pipeline.evaluation": ("pipeline.masks",),
    "pipeline.work": ("pipeline.plan", "pipeline.masks", "pipeline.storage", "model"),
    "pipeline.output": ("pipeline.plan", "pipeline.masks", "pipeline.storage"),
    "pipeline.look": ("pipeline.output", "pipeline.plan", "pipeline.masks", "pipeline.storage"),
    "pipeline.report": ("pipeline.look", "pipeline.output", "pipeline.plan", "pipeline.masks", "pipeline.storage"),
    "pipeline.comparison": ("pipeline.look", "pipeline.output", "pipeline.plan", "pipeline.masks", "pipeline.storage"),
    "pipeline.export": ("pipeline.output", "pipeline.plan", "pipeline.masks", "pipeline.storage"),
    "pipeline.explain": ("pipeline.look", "pipeline.masks", "pipeline.storage", "pipeline.work", "model"),
    "pipeline.api": (
        *("pipeline.look", "pipeline.output", "pipeline.plan", "pipeline.masks", "pipeline.storage"),
        *("pipeline.work", "model"),
    ),
    "pipeline.cluster": ("pipeline.work", "pipeline.plan", "pipeline.masks", "pipeline.storage"),
    "pipeline.run": tuple(f"pipeline.{room}" for room in ("cluster", "output", "work", "plan", "masks", "storage")),
}
"""Room -> the rooms that it may import, which never import it."""
MAY_IMPORT: dict[str, set[str]] = {
    "pipeline": {"pipeline.api"},
    "pipeline.records": set(),
    "pipeline.settings": set(),
    "pipeline.errors": {"pipeline.records"},
    "pipeline.progress": {"pipeline.settings", "pipeline.texts"},
    "pipeline.signals": set(),
    "pipeline.plain_values": {"pipeline.errors"},
    "pipeline.texts": set(),
    "jobs": {"jobs", *BELOW} | SHARED,
    "benchmarks": {"benchmarks", *BELOW} | SHARED,
} | {room: {room, *below} | (SHARED if room != "model" else set()) for room, below in BELOW.items()}
"""Room -> what it may import of ours; a name covers everything below it, except `pipeline`, which is the package."""

DOORS: dict[str, tuple[str, ...]] = {
    "ray": ("pipeline/cluster/",),
    "hydra": ("jobs/",),
    "omegaconf": ("jobs/",),
    "boto3": ("pipeline/storage/",),
    "botocore": ("pipeline/storage/",),
    "pyarrow": ("pipeline/storage/",),
    "PIL": ("pipeline/storage/",),
    "pi_heif": ("pipeline/storage/images.py",),
    "tifffile": ("pipeline/storage/tiff.py",),
    "imagecodecs": ("pipeline/storage/png.py", "pipeline/storage/jpeg.py"),
    "triton": (
        "pipeline/masks/gpu_kernels.py",
        "model/encoder_kernels.py",
        "model/decoder_kernels.py",
        "model/mask_kernels.py",
        "model/row_functions.py",
    ),
    "transformers": ("model/sam3_encoder.py",),
    "torch": ("model/", "pipeline/masks/", "pipeline/work/device.py", "pipeline/api/dataset.py", "jobs/"),
    "jinja2": ("pipeline/look/",),
    "matplotlib": ("pipeline/look/plots.py",),
    "tqdm": ("pipeline/progress.py",),
    "yaml": ("pipeline/api/recipes.py",),
}
"""Package -> the files or folders through which it may come in. benchmarks/ takes what its peers take."""

GLANCED = ("plan", "work", "cluster", "output", "look", "report", "comparison", "explain", "export", "api", "run")
"""Rooms of `pipeline` with at most 14 files. The formats of storage/ and the kernels of masks/ are many."""

FILES = sorted(path for room in ("model", "pipeline", "jobs", "benchmarks") for path in (ROOT / room).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, path: Path) -> Iterator[str]:
    """Every imported module, wherever in the file, absolute; `from a import b` is a.b if that is a module."""
    package = module_name(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                yield whole if is_module(whole) else origin


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room_of(module: str) -> str:
    return next((room for room in sorted(MAY_IMPORT, key=len, reverse=True) if covers(room, module)), module)


def covers(name: str, module: str) -> bool:
    return module == name or (name != "pipeline" and module.startswith(name + "."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_and_through_the_doors(path: Path):
    """A generator that knows storage, or a store that knows torch, cannot be used or tested alone."""
    allowed = MAY_IMPORT.get(room_of(module_name(path)), set())
    where = path.relative_to(ROOT).as_posix()
    for imported in imports_of(path.read_text(), path):
        top = imported.split(".")[0]
        if top in ROOMS:
            assert any(covers(name, imported) for name in allowed), f"{where} imports {imported}"
        if top in DOORS and not where.startswith("benchmarks/"):
            assert where.startswith(DOORS[top]), f"{where} imports {top}; it comes in through {DOORS[top]}"


@pytest.mark.parametrize("room", GLANCED)
def test_a_room_can_be_taken_in_at_a_glance(room: str):
    """Thirty files on eleven floors were too many to find anything in."""
    files = sorted((ROOT / "pipeline" / room).rglob("*.py"))
    assert len(files) <= 14, [path.name for path in files]
    own = {module_name(path): set(imports_of(path.read_text(), path)) for path in files}

    def chain(module: str, above: tuple[str, ...] = ()) -> tuple[str, ...]:
        assert module not in above, f"a circle: {[*above, module]}"
        return max(
            ((module, *chain(lower, (*above, module))) for lower in own[module] & own.keys()),
            key=len,
            default=(module,),
        )

    longest = max(map(chain, own), key=len)
    assert len(longest) <= 4, longest


def test_the_tests_above_see_every_spelling_of_an_import():
    """A rule that misses an import inside a function is no rule."""
    path = ROOT / "pipeline" / "masks" / "imagined.py"
    source = "import a.b\nfrom pipeline import storage\nfrom ..cluster import driver\ndef f():\n    import ray as r\n"
    assert set(imports_of(source, path)) == {"a.b", "pipeline.storage", "pipeline.cluster.driver", "ray"}


def test_model_is_ours():
    """`model` is a common name: another installed package of that name must not answer for it."""
    assert model.__file__ is not None
    assert Path(model.__file__).resolve().is_relative_to(ROOT)


def test_parts_carry_the_version_of_the_package():
    """The version stands in the code, so that it is known where nothing is installed (`ray job submit`)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pipeline.__version__ == project["version"]


BARE = """
import importlib, importlib.abc, importlib.metadata, pathlib, re, sys

def needed_by(found, *names):
    for name in {re.sub("[-_.]+", "-", name).lower() for name in names} - found:
        found.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        needed_by(found, *(re.match("[A-Za-z0-9._-]+", each)[0] for each in required if "extra ==" not in each))
    return found

THERE = needed_by({"maskmill"}, "torch", "numpy", "numba", "opencv-python", "pycocotools")
BLOCKED = {
    package
    for package, owners in importlib.metadata.packages_distributions().items()
    if not THERE & {re.sub("[-_.]+", "-", owner).lower() for owner in owners}
} | {"tests"}
assert BLOCKED > {"ray", "hydra", "boto3", "pyarrow", "PIL", "yaml", "safetensors", "transformers", "moto", "pytest"}

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not on a bare machine", name=name)

sys.meta_path.insert(0, Block())
paths = [path for room in ("model", "pipeline/masks") for path in pathlib.Path(room).rglob("*.py")]
of_runs = ("exports", "export_readers", "finish", "planning", "report", "synthetic", "throughput")
of_peers = ("small_models",)
WITH_TRITON = (
    *("on_gpu", "gpu_kernels", "encoder_kernels", "fused_encoder"),
    *("decoder_kernels", "mask_kernels", "row_functions", "fused_decoder", "fused_tokens"),
)
paths = [path for path in paths if path.stem not in WITH_TRITON]
paths += [path for path in pathlib.Path("benchmarks").glob("*.py") if path.stem not in of_runs + of_peers]
for path in sorted(paths):
    importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
assert "cv2" in sys.modules and "torch" in sys.modules
"""


def test_model_masks_and_benchmarks_of_the_generator_import_on_a_bare_machine():
    """GPU boxes often have torch, numpy, numba, opencv and pycocotools, and nothing else but what these need.

    The benchmark of planning is of storage, and benchmarks/reference/ needs what it adapts; both stay away.
    """
    result = subprocess.run([sys.executable, "-c", BARE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
