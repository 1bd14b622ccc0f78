"""What a measurement was made on: hardware, versions, commit."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pipeline
from benchmarks import device

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "numpy", "numba", "opencv-python", "pycocotools", "pillow", "segment-anything", "transformers")
GPU_PACKAGES = ("torchvision", "triton")


def provenance(device_kind: str = "cpu") -> dict[str, Any]:
    """Machine, device, versions, commit and time, as plain values for JSON."""
    packages = PACKAGES if device_kind == "cpu" else PACKAGES + GPU_PACKAGES
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain").splitlines()),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{platform.system()} {platform.machine()}",
            "load": round(os.getloadavg()[0], 2),
        },
        "device": device.describe(device_kind),
        "versions": {"python": platform.python_version(), "maskmill": pipeline.__version__}
        | {package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    """A git command's output; empty where there is no git or no repository."""
    try:
        result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.strip()


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
