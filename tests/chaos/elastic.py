"""A cluster with a machine on which no worker starts, and with one that joins when the work has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.nodes import cluster, has_worker
from tests.fakes_run import drawn_image, write_folder

ROOT = Path(__file__).parent.parent.parent
IMAGES = 400
"""More than are done before everything was seen; then the driver is told to stop."""

AVOIDED = "is avoided from now on: workers do not start: RuntimeError: the accelerator is on fire"


def elastic(folder: Path) -> list[str]:
    """What is wrong, in sentences. The first machine is avoided and named, the last one used; run.max_workers is unset,
    so that workers which wait for room are the demand that an autoscaler would see."""
    source = write_folder(folder / "in", {f"im{number:02d}.png": drawn_image(number) for number in range(IMAGES)})
    parts = folder / "out" / "data"
    overrides = [f'source="{source}"', f'out="{folder}/out"', "recipe=sam", "recipe.points_per_side=4"]
    problems: list[str] = []
    with cluster(count=1, cpus=1) as nodes:
        nodes.add(FAKE_BROKEN_HERE="1")
        command = [sys.executable, "-m", "tests.fake_generate", *overrides, f"run.address={nodes.address}"]
        with (folder / "log").open("wb") as log:
            driver = subprocess.Popen(
                [*command, "run.images_per_chunk=1", "model.device=cpu"],
                cwd=ROOT,
                env={**os.environ, "FAKE_SECONDS": "1", "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                running = driver.poll
                _wait(lambda: AVOIDED in (folder / "log").read_text(), running, "no machine is avoided", problems)
                late = nodes.add()
                _wait(lambda: has_worker(late), running, "the machine that joined late is not used", problems)
                _wait(lambda: parts.is_dir() and any(parts.iterdir()), running, "there is no part", problems)
                driver.send_signal(signal.SIGTERM)
                code = driver.wait(120)
            finally:
                driver.kill()
                driver.wait()
    said = (folder / "log").read_text()
    if code != 130 or "  avoided  node " not in said:
        problems.append(f"the driver ended with {code} and named no machine: {said[-1000:]}")
    return problems


def _wait(what: Callable[[], bool], ended: Callable[[], int | None], otherwise: str, problems: list[str]) -> None:
    deadline = time.monotonic() + 240
    while not what():
        if ended() is not None or time.monotonic() > deadline:
            problems.append(otherwise)
            return
        time.sleep(0.1)
