"""Train a small model on drawn scenes: `python -m jobs.train train.minutes=70 checkpoint=tiny.pt`.

Repeating the command goes on where it stopped; once the training is over, only the export is done again.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from jobs.command import run_command
from model.load import load_sam
from model.training.batches import held_out_batches
from model.training.calibrate import FIRST_SCENE, apply, fit
from model.training.evaluate import Evaluation, outputs_and_truths, summarise
from model.training.export import export_weights
from model.training.loop import Training, view_settings
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
    training.run(checkpoint)
    sys.stdout.write(f"{export(training, Path(job.export))}\n")
    return 0


def export(training: Training, path: Path) -> Evaluation:
    """Calibrate the averaged weights, write them with what they came from, return their figures as written."""
    sam = training.averaged()
    view = view_settings(training.settings, sam.config)
    images = training.settings.evaluation_images
    calibration = fit(sam, held_out_batches(view, images=images, batch=8, first=FIRST_SCENE))
    apply(sam, calibration)
    # The file is given to others: what it began from has a name, and no place.
    settings = replace(training.settings, start=Path(training.settings.start).name)
    notes = {
        "training": json.dumps(asdict(settings)),
        "progress": json.dumps(asdict(training.progress)),
        "calibration": json.dumps(asdict(calibration)),
    }
    export_weights(sam, path, notes=notes)
    written = load_sam(path.read_bytes())
    return summarise(outputs_and_truths(written, held_out_batches(view, images=images, batch=8)))


def main() -> int:
    return run_command("train", TrainJob, train)


if __name__ == "__main__":
    sys.exit(main())
