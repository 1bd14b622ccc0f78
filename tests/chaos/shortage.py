"""An image that takes all the memory of its machine, and Ray's memory monitor, which ends the worker that has it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.settings import Format
from pipeline.storage.parts import read_part
from tests.fakes_run import GLUTTON_MIB, GLUTTON_RGB, drawn_image, write_folder

ROOT = Path(__file__).parent.parent.parent
IMAGES = 8
GLUTTON = "im05.png"
ROOM_MIB = 4096
"""Beyond what is in use at first: Ray and two workers take some 1,500; the rest is for what else the machine does."""
NAMED = "3 attempts at this image failed: its machine ran out of memory"
SAID = (
    "ran out of memory, and Ray ended a worker there; one worker",
    "goes on without one image",
    "are asked for again",
)


def shortage(folder: Path) -> tuple[list[str], list[str]]:
    """Lines of a report, and what is wrong. The image is named, no other one is, and the driver says what to do."""
    begun = time.monotonic()
    images = {f"im{n:02d}.png": drawn_image(n, first_rgb=GLUTTON_RGB if n == 5 else None) for n in range(IMAGES)}
    source = write_folder(folder / "in", images)
    overrides = [f'source="{source}"', f'out="{folder}/out"', "recipe=sam", "recipe.points_per_side=4"]
    limits = ["run.images_per_chunk=4", "run.max_workers=2", "run.max_failed_fraction=0.5", "model.device=cpu"]
    in_all, in_use = memory_mib()
    if in_all - in_use < GLUTTON_MIB:
        return [f"chaos shortage: FAILED, it needs {GLUTTON_MIB} MiB that nobody uses"], ["no memory"]
    monitor = {
        "RAY_memory_usage_threshold": f"{(in_use + ROOM_MIB) / in_all:.4f}",
        "RAY_memory_monitor_refresh_ms": "50",
        "RAY_worker_niceness": "0",
    }
    with (folder / "log").open("wb") as log:
        code = subprocess.run(
            [sys.executable, "-m", "tests.fake_generate", *overrides, *limits],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **monitor},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=900,
            check=False,
        ).returncode
    said = (folder / "log").read_text()
    problems = list(_problems(folder, code, said))
    lines = [line for line in said.splitlines() if "memory" in line]
    verdict = f"chaos shortage: {'FAILED' if problems else 'sound'} after {time.monotonic() - begun:.0f} s"
    return [verdict, *(f"  {line.strip()}" for line in lines), *map("  WRONG    {}".format, problems)], problems


def _problems(folder: Path, code: int, said: str) -> Iterator[str]:
    if code:
        yield f"the driver ended with {code}"
    parts = [path.read_bytes() for path in (folder / "out" / "data").glob("*.parquet")]
    rows = {row.file_name: row for data in parts for row in read_part(data, format=Format.PARQUET).rows}
    bad = {name: row.error for name, row in rows.items() if row.status != "ok"}
    if len(rows) != IMAGES or bad != {GLUTTON: NAMED}:
        yield f"{len(rows)} rows, and not ok are {bad}"
    yield from (f"nobody said {words!r}" for words in SAID if words not in said)


def memory_mib() -> tuple[float, float]:
    """Of this machine: what there is, and what is in use."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kib["MemTotal"] / 1024, (kib["MemTotal"] - kib["MemAvailable"]) / 1024
