"""Train for so many seconds with torch, numpy and OpenCV alone: `python -m model.training train OUT --seconds 290`.

For a machine with a GPU that is there for minutes. OUT gets the averaged weights (averaged.safetensors), those of the
last step, the curve and the state, from which the same command goes on. `python -m model.training finish` calibrates
averaged weights, at leisure, which is what model.checkpoint should get; `photographs` makes the file of textures and
cut-outs that scenes may be drawn with. `jobs.train` trains with Hydra's settings.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from model.config import TRAINABLE
from model.load import load_sam
from model.training.calibrate import read_notes
from model.training.export import export_calibrated, export_weights, notes_of
from model.training.loop import Training, view_settings
from model.training.photo_cuts import gather
from model.training.settings import TrainSettings

RESERVE_S = 10.0
"""Kept for the last evaluation and the files."""


def train(out: Path, settings: TrainSettings, *, until: float) -> None:
    """Train until this moment of `time.monotonic`, the last evaluation and the files included; at least one step."""
    torch.backends.cudnn.benchmark = True
    state = out / "state.pt"
    is_begun = state.exists()
    training = Training.resume(state, settings) if is_begun else Training(settings)
    out.mkdir(parents=True, exist_ok=True)
    if not is_begun:
        training.evaluated(state)
    left_s = max(0.01, until - RESERVE_S - time.monotonic())
    minutes = (training.progress.elapsed_s + left_s) / 60
    training.settings = replace(settings, minutes=minutes)
    training.run(state)
    notes = notes_of(training)
    export_weights(training.averaged(), out / "averaged.safetensors", notes=notes)
    export_weights(training.sam, out / "last.safetensors", notes=notes)
    logging.info("all written after %.0f s", seconds_since_begin())


def seconds_since_begin() -> float:
    """Of this process, the imports included; on Linux, and 0 elsewhere."""
    try:
        of_process = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(of_process[19]) / os.sysconf("SC_CLK_TCK")


def finish(weights: Path, out: Path, settings: TrainSettings) -> None:
    """Calibrate and write weights, and print their figures."""
    sam = load_sam(weights.read_bytes(), expected=TRAINABLE[settings.model])
    view = view_settings(settings, sam.config)
    print(export_calibrated(sam, out, view, images=settings.evaluation_images, notes=read_notes(weights)))  # noqa: T201


def changed(settings: Any, assignments: Sequence[str]) -> Any:
    """The settings with `name=value` for some of their fields, `loss.name=value` for those of the loss.

    raises  ValueError for a name that is none, or a value of another kind
    """
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        settings = _with(settings, name.split("."), text)
    return settings


def _with(settings: Any, path: Sequence[str], text: str) -> Any:
    name, *rest = path
    if name not in (field.name for field in fields(settings)):
        raise ValueError(f"there is no setting {name!r}; there are {', '.join(f.name for f in fields(settings))}")
    now = getattr(settings, name)
    if is_dataclass(now):
        return replace(settings, **{name: _with(now, rest, text)})
    if isinstance(now, bool):
        return replace(settings, **{name: {"true": True, "false": False}[text.lower()]})
    return replace(settings, **{name: float(text) if now is None else type(now)(text)})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m model.training", description="Train a small model.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, places in (("photographs", ["out"]), ("train", ["out"]), ("finish", ["weights", "out"])):
        command = commands.add_parser(name)
        for place in places:
            command.add_argument(place, type=Path)
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="see TrainSettings")
    commands.choices["train"].add_argument("--seconds", type=float, required=True)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings: TrainSettings = changed(TrainSettings(), given.set)
    logging.info("%s", json.dumps(asdict(settings)))
    if given.command == "photographs":
        gather(given.out)
    elif given.command == "train":
        train(given.out, settings, until=time.monotonic() + given.seconds - seconds_since_begin())
    else:
        finish(given.weights, given.out, settings)


if __name__ == "__main__":
    main()
