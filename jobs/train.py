"""Train a small model: `python -m jobs.train train.steps=8000 [train.source=out/photos]`.

It trains on drawn scenes, and also on the images of `train.source`, whose masks are known. Repeating the command goes
on where it stopped. Once the training is over, only the export is done again. On a machine with a GPU and 16 cores:
`python -m jobs.train train.workers=15 train.batch=64 train.steps=60000` (it chooses device and precision by itself).

Imports no torch until it trains: the processes that make views begin with this file, and need none.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from jobs.command import run_command
from model.training.labelled import MixedScenes, UnusableImagesError
from model.training.scenes import SceneSource
from model.training.settings import TrainSettings
from pipeline.errors import ConfigError
from pipeline.output.labelled import UsableImages, open_labelled
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute
from pipeline.texts import printable

MAX_PIXELS = 2**26
"""Largest number of pixels of an image to train on. Larger images are not read."""


@dataclass(frozen=True)
class TrainJob:
    """What the command takes."""

    checkpoint: str = "outputs/train/small.pt"
    """File that the training is kept in. If it exists, the training goes on from there."""
    export: str = "outputs/train/small.safetensors"
    """File for the averaged weights at the end, in half precision, ready for model.checkpoint."""
    threads: int = 1
    """torch threads inside an operator. `train.replicas` is a better use of several cores."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """How `train.source` is reached."""
    train: TrainSettings = field(default_factory=TrainSettings)


def train(job: TrainJob) -> int:
    """Train to the end and export.

    raises  ConfigError if this device cannot train, or train.source holds nothing to train on
    """
    import torch

    from model.load import CheckpointError
    from model.training.export import export_training
    from model.training.loop import Training

    log_to_stderr()
    torch.set_num_threads(job.threads)
    checkpoint = Path(job.checkpoint)
    scenes = scenes_of(job)
    try:
        is_begun = checkpoint.exists()
        training = Training.resume(checkpoint, job.train, scenes) if is_begun else Training(job.train, scenes)
        training.run(checkpoint)
    except (CheckpointError, UnusableImagesError) as error:
        raise ConfigError(str(error)) from error
    sys.stdout.write(f"{export_training(training, Path(job.export))}\n")
    return 0


class PrintableFormatter(logging.Formatter):
    """One line a message, whatever names stand in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


def log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def scenes_of(job: TrainJob) -> SceneSource:
    """The images of the training: drawn scenes, mixed with those of train.source if it names some."""
    from model.training.loop import drawn_scenes

    drawn = drawn_scenes(job.train)
    if not job.train.source:
        return drawn
    images = UsableImages(open_labelled(absolute(job.train.source), connect(job.store)), max_pixels=MAX_PIXELS)
    return MixedScenes(job.train.seed, drawn, images, share=job.train.source_share, side=job.train.source_side)


def main() -> int:
    return run_command("train", TrainJob, train)


if __name__ == "__main__":
    sys.exit(main())
