"""Train a small model: `python -m jobs.train train.steps=8000 [train.source=out/photos]`.

It trains on drawn scenes, and also on the images of `train.source`, whose masks are known. Repeating the command goes
on where it stopped. Once the training is over, only the export is done again. On a machine with a GPU and 16 cores:
`python -m jobs.train train.workers=15 train.batch=64 train.steps=60000` (it chooses device and precision by itself).
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from jobs.command import run_command
from model.load import CheckpointError, load_sam
from model.training.batches import held_out_batches
from model.training.calibrate import FIRST_SCENE, apply, fit
from model.training.evaluate import Evaluation, outputs_and_truths, summarise
from model.training.export import export_weights
from model.training.labelled import MixedScenes, UnusableImagesError
from model.training.loop import Training, view_settings
from model.training.optimiser import TorchTooOldError
from model.training.scenes import DrawnScenes, SceneSource
from model.training.settings import TrainSettings
from pipeline.errors import ConfigError, StorageError
from pipeline.evaluation.truths import mask_pixels
from pipeline.output.labelled import LabelledImages, open_labelled
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute

log = logging.getLogger(__name__)

MAX_PIXELS = 2**26
"""Largest number of pixels of an image to train on. Larger images are not read."""


@dataclass(frozen=True)
class TrainJob:
    """What the command takes."""

    checkpoint: str = "outputs/train/tiny.pt"
    """File that the training is kept in. If it exists, the training goes on from there."""
    export: str = "outputs/train/tiny.safetensors"
    """File for the averaged weights at the end, in half precision, ready for model.checkpoint."""
    threads: int = 1
    """torch threads inside an operator. `train.replicas` is a better use of several cores."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """How `train.source` is reached."""
    train: TrainSettings = field(default_factory=TrainSettings)


def train(job: TrainJob) -> int:
    """Train to the end and export.

    raises  ConfigError if this torch or device cannot train, or train.source holds nothing to train on
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr, force=True)
    torch.set_num_threads(job.threads)
    checkpoint = Path(job.checkpoint)
    scenes = scenes_of(job)
    try:
        is_begun = checkpoint.exists()
        training = Training.resume(checkpoint, job.train, scenes) if is_begun else Training(job.train, scenes)
        training.run(checkpoint)
    except (CheckpointError, TorchTooOldError, UnusableImagesError) as error:
        raise ConfigError(str(error)) from error
    sys.stdout.write(f"{export(training, Path(job.export))}\n")
    return 0


@dataclass(frozen=True)
class ReadImages:
    """Labelled images in the form that the training takes. An image that cannot be read is left out, with a line in the
    log."""

    images: LabelledImages

    def __len__(self) -> int:
        return len(self.images)

    def read(self, number: int) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]] | None:
        """See `LabelledSource`."""
        try:
            known = self.images.masks(number)
            if not known.counts:
                return None
            rgb_HW3 = self.images.pixels(number, max_pixels=MAX_PIXELS)
        except StorageError as error:
            log.warning("left out: %s", error)
            return None
        if rgb_HW3.shape[:2] != known.hw:
            log.warning("left out: image %d is not of its masks' size", self.images.entries[number].image_id)
            return None
        return rgb_HW3, [mask_pixels(counts, known.hw) for counts in known.counts]


def scenes_of(job: TrainJob) -> SceneSource:
    """The images of the training: drawn scenes, mixed with those of train.source if it names some."""
    drawn = DrawnScenes(job.train.seed)
    if not job.train.source:
        return drawn
    images = ReadImages(open_labelled(absolute(job.train.source), connect(job.store)))
    return MixedScenes(job.train.seed, drawn, images, share=job.train.source_share, side=job.train.source_side)


def export(training: Training, path: Path) -> Evaluation:
    """Calibrate the averaged weights and write them, with notes on how they were made. Returns the evaluation of the
    written file."""
    sam = training.averaged().cpu()
    view = view_settings(training.settings, sam.config)
    images = training.settings.evaluation_images
    calibration = fit(sam, held_out_batches(view, images=images, batch=8, first=FIRST_SCENE))
    apply(sam, calibration)
    # The file is given to others, so it names what it began from without the folder.
    given = training.settings
    settings = replace(given, start=Path(given.start).name, source=Path(given.source).name)
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
