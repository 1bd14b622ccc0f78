"""One peer in its own process: `python -m benchmarks.worker`, one JSON request a line on stdin, one answer on stdout.

The first request builds the peer; each later one runs it on one image. Times are this process's own CPU time around
the call alone, and the wall time until the device has done all; memory is the highest resident size during it, and the
device's. Whatever a library prints goes to stderr.

Requests  {"peer": {...}, "setup": {...}, "threads": n}
          {"image": path of .npy, "recipe": {...}, "do": "run", "stages", "ceilings" or "trace",
           "file": path of a trace}
Answers   {"ready": true}
          run: {"user": s, "system": s, "wall": s, "peak_bytes": n, "device_peak_bytes": n or null,
                "stages": {...} (on a CPU), "masks": [...]}
          stages: {"stages": {...}, "funnel": {...}}
          ceilings: {"ceilings": {...}}
          trace: {"trace": path}
          {"error": sentence}
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import ceilings
from benchmarks.cases import recipe_of
from benchmarks.device import forget_peak, peak_bytes, stage_clock, trace, wall_seconds
from benchmarks.peers import DECODE, ENCODE, Generator, Image_HW3, Peer, Setup
from benchmarks.stages import REST, Clock, clocked, staged
from pipeline.settings import Recipe

STATUS = Path("/proc/self/status")


def main() -> None:
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        generator: Generator | None = None
        device = ""
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if generator is None:
                    device = request["setup"]["device"]
                    generator, answer = _build(request), {"ready": True}
                else:
                    answer = _answer(generator, device, request)
            # A peer may fail in any way; the comparison goes on and its row says how.
            except Exception as error:  # noqa: BLE001
                answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _build(request: dict[str, Any]) -> Generator:
    torch.set_num_threads(request["threads"])
    torch.set_grad_enabled(False)
    return Peer(**request["peer"]).build(Setup(**request["setup"]))


def _answer(generator: Generator, device: str, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "ceilings":
        return {"ceilings": asdict(ceilings.measure(device))}
    image_HW3, recipe = np.load(request["image"]), recipe_of(request["recipe"])
    if request["do"] == "stages":
        stages, funnel = staged(generator, image_HW3, recipe, stage_clock(device))
        return {"stages": stages, "funnel": funnel}
    if request["do"] == "trace":
        trace(device, Path(request["file"]), lambda: generator.generate(image_HW3, recipe))
        return {"trace": request["file"]}
    return _run(generator, device, image_HW3, recipe)


def _run(generator: Generator, device: str, image_HW3: Image_HW3, recipe: Recipe) -> dict[str, Any]:
    on_cpu = device == "cpu"
    clock = Clock(stage_clock(device))
    _forget_peak()
    forget_peak(device)
    wall, before = wall_seconds(device), resource.getrusage(resource.RUSAGE_SELF)
    with clocked(clock, generator.seams() if on_cpu else []):
        answer = clock.timed(REST, generator.generate)(image_HW3, recipe)
    wall, after = wall_seconds(device) - wall, resource.getrusage(resource.RUSAGE_SELF)
    measured: dict[str, Any] = {
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        "wall": wall,
        "peak_bytes": resident_peak_bytes(),
        "device_peak_bytes": peak_bytes(device),
    }
    if on_cpu:
        measured["stages"] = {stage: clock.seconds[stage] for stage in (ENCODE, DECODE, REST)}
    return measured | {"masks": [asdict(mask) for mask in generator.masks(answer)]}


def _forget_peak() -> None:
    """Let the kernel count the highest resident size anew; where it refuses, the process's own highest stands."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_peak_bytes() -> int:
    """VmHWM of this process."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
