"""A short run under fire; `make chaos` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["short", "elastic"])
def test_short_chaos_loses_doubles_and_blames_nothing(name: str):
    """Killed workers, a killed node, driver and journal, a poisonous image, a quarter of the S3 requests harmed; and a
    machine on which nothing starts. In processes of its own: this one has a Ray session."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos", name], cwd=ROOT, capture_output=True, text=True, timeout=880, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"chaos {name}" in ended.stdout
    assert "sound" in ended.stdout
