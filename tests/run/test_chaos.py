"""A short run under fire; `make chaos` is the long one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(1200)
def test_short_chaos_loses_doubles_and_blames_nothing():
    """Killed workers, a killed node, driver and journal, a poisonous image, a quarter of the S3 requests harmed; and a
    machine on which nothing starts. In a process of its own: this one has a Ray session."""
    command = [sys.executable, "-m", "tests.chaos", "short", "elastic"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1180, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.findall("^chaos (.*?)[ :].*sound", ended.stdout, re.MULTILINE) == ["short", "elastic"]
