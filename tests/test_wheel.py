"""The wheel, installed into an environment of its own and used away from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.compiled import compile_here, lend

ROOT = Path(__file__).parent.parent
PACKAGED = ("pipeline", "model", "conf", "jobs", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment that has the wheel, and this environment's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # Without isolation the build takes this environment's setuptools, so that nothing is fetched.
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run([*pip, *build], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    bin_folder, (wheel,) = folder / "venv" / "bin", folder.glob("*.whl")
    subprocess.run([*pip, "--python", str(bin_folder / "python"), "install", "--no-deps", str(wheel)], check=True)
    # Behind its own packages, this environment's. What is installed there as editable does not come along.
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    compile_here()
    lend(site)
    return bin_folder


def command(installed: Path, *arguments: str, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(installed / arguments[0]), *arguments[1:]], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_makes_masks_of_its_sample_with_its_weights(installed: Path, tmp_path: Path) -> None:
    told = command(installed, "maskmill", "--help", cwd=tmp_path)
    sample = told.split("source=")[-1].split()[0]
    assert not Path(sample).is_relative_to(ROOT)
    quick = ["recipe=fast", "recipe.points_per_side=2", "run.max_workers=1"]
    made = command(installed, "maskmill", "generate", f"source={sample}", "out=masks", *quick, cwd=tmp_path)
    assert "8 ok, 0 failed" in made
    assert "8 of 8 planned" in command(installed, "maskmill", "verify", "out=masks", cwd=tmp_path)
    command(installed, "maskmill", "look", "out=masks", "look=page.html", cwd=tmp_path)
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_one_image_in_python_needs_nothing_of_the_repository(installed: Path, tmp_path: Path) -> None:
    code = (
        "import numpy, pipeline; from pipeline import MaskGenerator\n"
        "masks = MaskGenerator(points_per_side=2).generate(numpy.zeros((64, 64, 3), 'uint8'))\n"
        "print(type(masks).__name__, pipeline.__file__)"
    )
    kind, path = command(installed, "python", "-c", code, cwd=tmp_path).split()
    assert kind == "Masks"
    assert Path(path).is_relative_to(installed.parent)
