"""Train a small model on drawn scenes, resumable by repeating the command: `python -m jobs.train train.minutes=70`."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import hydra
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from model.training.loop import Training
from model.training.settings import LossSettings, StageSettings, TrainSettings


@dataclass(frozen=True)
class TrainJob:
    """What the command takes."""

    checkpoint: str = "outputs/train/tiny.pt"
    """Where the training is kept; it goes on from there if the file exists."""
    threads: int = 2
    """torch threads."""
    train: TrainSettings = field(default_factory=TrainSettings)


ConfigStore.instance().store(name="train_job", node=asdict(TrainJob()))


def job_settings(tree: dict[str, Any]) -> TrainJob:
    """The settings that a composed configuration stands for."""
    train = dict(tree["train"])
    train["stages"] = tuple(StageSettings(**stage) for stage in train["stages"])
    train["loss"] = LossSettings(**train["loss"])
    return TrainJob(**{**tree, "train": TrainSettings(**train)})


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> None:
    """Train to the end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    job = job_settings(cast(dict[str, Any], OmegaConf.to_container(config, resolve=True)))
    torch.set_num_threads(job.threads)
    path = Path(job.checkpoint)
    training = Training.resume(path, job.train) if path.exists() else Training(job.train)
    training.run(path)


if __name__ == "__main__":
    main()
