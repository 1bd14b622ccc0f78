"""Commands as a user gives them, for the tests of jobs/: in this process, or in one that lacks torch and Ray."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
Command = Callable[..., tuple[int, str, str]]
"""Overrides -> the exit code, and what was said on stdout and on stderr."""

_WITHOUT_TORCH_AND_RAY = """
import importlib, importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "ray"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)

sys.meta_path.insert(0, Block())
sys.exit(importlib.import_module(sys.argv.pop(1)).main())
"""


def command_of(
    name: str, main: Callable[[], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`python -m jobs.<name>`, whose `main` this is; without the line that it says when ten seconds are over, which a
    slow machine would say and another one not."""
    monkeypatch.setattr("pipeline.progress.SECONDS_BETWEEN_LINES", math.inf)

    def command(*overrides: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", [name, *overrides])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def without_torch_and_ray(module: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The command in a process in which neither can be imported, and that has no desktop."""
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH_AND_RAY, module, *overrides],
        cwd=ROOT,
        env={**os.environ, "DISPLAY": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
