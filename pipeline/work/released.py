"""Weights by name: the released file of a model, in the user's cache folder, fetched when it is not there.

Owns where copies lie and what is said of them. model/released.py has the files, download.py fetches one.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from model.released import RELEASED
from pipeline.errors import ConfigError, StorageError
from pipeline.progress import Progress
from pipeline.settings import ModelSettings
from pipeline.work.download import download, is_there


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/maskmill/weights, or the same below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskmill" / "weights"


def is_by_name(model: ModelSettings) -> bool:
    """Whether its weights are a released file that no setting names."""
    return model.checkpoint is None and model.name in RELEASED


def with_released(model: ModelSettings, progress: Progress) -> ModelSettings:
    """The same settings, with the path of the released file where it is needed, which is fetched if it is not there.

    raises  ConfigError with what to do, if it cannot be fetched
    """
    return replace(model, checkpoint=str(fetched(model.name, progress))) if is_by_name(model) else model


def fetched(name: str, progress: Progress) -> Path:
    """The released file of a model of RELEASED, on this machine.

    raises  ConfigError with what to do, if it cannot be fetched
    """
    file = RELEASED[name]
    path = cache_folder() / file.name
    if is_there(path, file.size):
        return path
    progress.say(f"fetching {file.name}, {file.size / 1e9:.2f} GB ({file.licence}), from {file.url} to {path.parent}")
    try:
        download(
            file.url,
            path,
            size=file.size,
            sha256=file.sha256,
            told=lambda done: progress.show_fetch(file.name, done, file.size),
        )
    except (StorageError, ConfigError) as error:
        raise ConfigError(
            f"model={name}: {error}; or put the file at {path} yourself, or set model.checkpoint to where you have it"
        ) from error
    return path


def on_a_cluster(name: str) -> str:
    """What to do where several machines need the file, as a sentence."""
    return (
        f"model={name} needs model.checkpoint where several machines read it: "
        f"make weights MODEL={name} TO=s3://bucket/weights puts {RELEASED[name].name} there"
    )
