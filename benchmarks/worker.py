"""One peer in its own process: `python -m benchmarks.worker`, one JSON request a line on stdin, one answer on stdout.

The first request builds the peer; each later one runs it on one image. Times are this process's own CPU time around
the call alone, memory the highest resident size during it. Whatever a library prints goes to stderr.

Requests  {"peer": {...}, "setup": {...}, "threads": n}
          {"image": path of .npy, "recipe": {...}, "stages": bool}
Answers   {"ready": true} | {"user": s, "system": s, "wall": s, "peak_bytes": n, "stages": {...}, "masks": [...]}
          {"stages": {...}, "funnel": {...}}
          {"error": sentence}
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers import DECODE, ENCODE, Generator, Peer, Setup
from benchmarks.stages import REST, Clock, clocked, staged
from pipeline.settings import CropRank, Recipe

STATUS = Path("/proc/self/status")


def main() -> None:
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        generator: Generator | None = None
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if generator is None:
                    generator, answer = _build(request), {"ready": True}
                else:
                    answer = _run(generator, request)
            # A peer may fail in any way; the comparison goes on and its row says how.
            except Exception as error:  # noqa: BLE001
                answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _build(request: dict[str, Any]) -> Generator:
    torch.set_num_threads(request["threads"])
    torch.set_grad_enabled(False)
    return Peer(**request["peer"]).build(Setup(**request["setup"]))


def _run(generator: Generator, request: dict[str, Any]) -> dict[str, Any]:
    image_HW3 = np.load(request["image"])
    recipe = Recipe(**request["recipe"] | {"crop_rank": CropRank(request["recipe"]["crop_rank"])})
    if request["stages"]:
        stages, funnel = staged(generator, image_HW3, recipe)
        return {"stages": stages, "funnel": funnel}
    clock = Clock()
    _forget_peak()
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with clocked(clock, generator.seams()):
        answer = clock.timed(REST, generator.generate)(image_HW3, recipe)
    after = resource.getrusage(resource.RUSAGE_SELF)
    wall, peak = time.perf_counter() - wall, peak_bytes()
    return {
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        "wall": wall,
        "peak_bytes": peak,
        "stages": {stage: clock.seconds[stage] for stage in (ENCODE, DECODE, REST)},
        "masks": [asdict(mask) for mask in generator.masks(answer)],
    }


def _forget_peak() -> None:
    """Let the kernel count the highest resident size anew; where it refuses, the process's own highest stands."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """VmHWM of this process."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
