"""`python -m tests`: the whole suite in two processes side by side, because one alone leaves cores idle.

What starts Ray is one of them: Ray sessions side by side would disturb each other, and who waits for one to start can
compute something else meanwhile. All else is the other; its output is shown when the first one has ended. For a single
test, call pytest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
RAY = ("tests/run", "tests/cluster")
HALVES = (RAY, ("tests", *(f"--ignore={folder}" for folder in RAY)))


def main() -> int:
    """0 if both halves passed, else the larger of pytest's two exit codes."""
    ray, rest = ([sys.executable, "-m", "pytest", *half] for half in HALVES)
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen(rest, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        try:
            code = subprocess.run(ray, cwd=ROOT, check=False).returncode
            beside.wait()
        finally:
            if beside.poll() is None:
                beside.terminate()
                beside.wait()
            said.seek(0)
            sys.stdout.write(said.read().decode(errors="replace"))
    return max(code, beside.returncode)


if __name__ == "__main__":
    sys.exit(main())
