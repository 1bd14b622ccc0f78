"""Train a small model on drawn scenes: `python -m jobs.train train.minutes=70 checkpoint=tiny.pt`.

Repeating the command goes on where it stopped; once the training is over, only the export is done again.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from jobs.command import run_command
from model.training.export import export_weights
from model.training.loop import Training
from model.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainJob:
    """What the command takes."""

    checkpoint: str = "outputs/train/tiny.pt"
    """Where the training is kept; it goes on from there if the file exists."""
    export: str = "outputs/train/tiny.safetensors"
    """The averaged weights of the end, in half precision, ready for model.checkpoint."""
    threads: int = 1
    """torch threads inside an operator; `train.replicas` is the better use of cores."""
    train: TrainSettings = field(default_factory=TrainSettings)


def train(job: TrainJob) -> int:
    """Train to the end and export."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr, force=True)
    torch.set_num_threads(job.threads)
    checkpoint = Path(job.checkpoint)
    training = Training.resume(checkpoint, job.train) if checkpoint.exists() else Training(job.train)
    evaluation = training.run(checkpoint)
    export_weights(training, Path(job.export))
    sys.stdout.write(f"{job.export}: {evaluation}\n")
    return 0


def main() -> int:
    return run_command("train", TrainJob, train)


if __name__ == "__main__":
    sys.exit(main())
