"""The options of a benchmark from its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from benchmarks.cases import ON_DEVICE, RECIPE_NAMES, Options
from benchmarks.device import DEVICES
from benchmarks.peers import PEERS
from model.config import CONFIGS

SCALARS = {
    "repetitions": (int, "runs of each peer in each case"),
    "budget-s": (float, "CPU seconds (wall on cuda) of a peer in a case, beyond which it runs once"),
    "limit-wall-s": (float, "wall seconds of one run"),
    "threads": (int, "of torch and OpenMP in each peer"),
    "image": (str, "image file instead of a drawn scene"),
    "scene": (int, "number of the drawn scene"),
    "pred-iou-thresh": (float, "for all peers instead of the recipe's"),
    "stability-score-thresh": (float, "for all peers instead of the recipe's"),
    "points-per-side": (int, "for all peers instead of the recipe's"),
    "fast-checkout": (str, "folder of a segment-anything-fast checkout"),
    "trace": (str, "file for a profiler's trace of ours on the first case's image"),
}


def parse(arguments: Sequence[str]) -> tuple[Options, Path]:
    """Options and the folder for the results from a command line; what it does not name keeps its default."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Peers side by side on the same weights and image.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where every peer runs")
    parser.add_argument("--models", nargs="+", choices=list(CONFIGS))
    parser.add_argument("--recipes", nargs="+", choices=RECIPE_NAMES)
    parser.add_argument("--sizes", nargs="+", metavar="WxH", dest="sizes_wh", type=_size)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS))
    parser.add_argument("--weights", nargs="*", metavar="MODEL=PATH", type=_weights)
    for name, (kind, text) in SCALARS.items():
        parser.add_argument(f"--{name}", type=kind, help=text)
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for compare.json and compare.md")
    chosen = vars(parser.parse_args(arguments))
    out: Path = chosen.pop("out")
    values: dict[str, Any] = {
        name: tuple(cast("list[object]", value)) if isinstance(value, list) else value for name, value in chosen.items()
    }
    return replace(Options(), **ON_DEVICE[values["device"]] | values), out


def _size(text: str) -> tuple[int, int]:
    width, height = (int(side) for side in text.split("x"))
    return width, height


def _weights(text: str) -> tuple[str, str]:
    model, path = text.split("=", 1)
    return model, path
