"""What measuring needs to know of the device that the peers run on: its clock, its memory, its name, a trace of it.

All questions to CUDA are asked here. On a CPU what counts is the process's own CPU time; on a GPU wall time between
moments at which it has nothing left to do.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

DEVICES = ("cpu", "cuda")


class DeviceError(RuntimeError):
    """The device cannot be used; the message says what to do."""


def check(device: str) -> None:
    """raises DeviceError if this machine has no such device for torch"""
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"--device cuda was asked for, but torch {torch.__version__} sees no CUDA device here. Run it where "
            "nvidia-smi lists a GPU, with a torch built for CUDA (its version must not end in +cpu); without a GPU "
            "leave --device out, which measures on the CPU"
        )


def synchronise(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def wall_seconds(device: str) -> float:
    """Wall clock with nothing left to do on the device."""
    synchronise(device)
    return time.perf_counter()


def stage_clock(device: str) -> Callable[[], float]:
    """What a stage's seconds are read from: the process's CPU time, or the synchronised wall clock of a GPU."""
    return (lambda: wall_seconds(device)) if device == "cuda" else time.process_time


def forget_peak(device: str) -> None:
    """Count the device's peak memory anew."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """Most bytes of torch's tensors on the device at any time since `forget_peak`; None where there is no such device.

    What the allocator holds in reserve and what CUDA itself takes is not counted.
    """
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def describe(device: str) -> dict[str, Any] | None:
    """The device's name and versions, as plain values for JSON; None for the CPU, which the machine's part names."""
    if device == "cpu":
        return None
    properties = cast(Any, torch.cuda).get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip().splitlines()[0]


def trace(device: str, file: Path, call: Callable[[], Any]) -> None:
    """Run `call` once and write what torch's profiler saw of it, on host and device, as a Chrome trace."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds, record_shapes=True) as profile:
        call()
        synchronise(device)
    file.parent.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(file))
