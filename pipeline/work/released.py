"""Weights that a command fetches: the released file of a model by its name, or a file of the Hugging Face Hub.

Owns when that is done, where copies of released files lie and what is said of them. model/released.py has the files,
download.py fetches one, hub.py asks the Hub.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from model.released import RELEASED, TERMS
from pipeline.errors import ConfigError, StorageError
from pipeline.progress import Progress
from pipeline.settings import ModelSettings
from pipeline.work.download import download, is_there
from pipeline.work.hub import fetched_from_hub, is_on_hub


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/maskmill/weights, or the same below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskmill" / "weights"


def is_fetched(model: ModelSettings) -> bool:
    """Whether its weights are a released file that no setting names, or lie on the Hub."""
    return is_on_hub(model.checkpoint) or (model.checkpoint is None and model.name in RELEASED)


def with_weights_here(model: ModelSettings, progress: Progress) -> ModelSettings:
    """The same settings, with the path of the file on this machine where it is to be fetched. Its terms are said.

    raises  ConfigError with what to do, if it cannot be fetched
    """
    if model.name in TERMS:
        progress.say(TERMS[model.name])
    if not is_fetched(model):
        return model
    return replace(model, checkpoint=str(fetched(model.checkpoint or model.name, progress)))


def fetched(name: str, progress: Progress) -> Path:
    """The released file of a model of RELEASED, or the one at an address of the Hub, on this machine.

    raises  ConfigError with what to do, if it cannot be fetched
    """
    if is_on_hub(name):
        return fetched_from_hub(name, progress)
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


def on_a_cluster(model: ModelSettings) -> str:
    """What to do where several machines need the file, as a sentence."""
    name = model.checkpoint or model.name
    file = name.rpartition("/")[2] if is_on_hub(name) else RELEASED[name].name
    return (
        f"model={model.name} needs model.checkpoint where several machines read it: "
        f"make weights MODEL={name} TO=s3://bucket/weights puts {file} there"
    )
