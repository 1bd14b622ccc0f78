"""The weights of a run: their hash, found before anything is planned, and how a worker loads its model from them.

Owns the reading of a checkpoint and the comparison with the run's. What a checkpoint may hold, model/load.py decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from model.load import CheckpointError, checked_sha256, load_segmenter
from model.segmenter import TorchSegmenter
from pipeline.errors import ConfigError, DeniedError, NotFoundError
from pipeline.masks.segmenter import Segmenter
from pipeline.settings import ModelSettings, Settings
from pipeline.storage.store import Store

LoadSegmenter = Callable[[Store], Segmenter[Any]]
"""How a worker gets its model, of whatever kind: travels to the worker pickled and is called there once."""


@dataclass(frozen=True)
class Weights:
    """What the model is (`sha256`, part of the plan) and how a worker gets it."""

    sha256: str
    load: LoadSegmenter


FindWeights = Callable[[Settings, Store], Weights]


def weights_from_settings(settings: Settings, store: Store) -> Weights:
    """raises ConfigError if the model is unknown or its checkpoint cannot be read"""
    sha256 = checkpoint_sha256(settings.model, store)
    return Weights(sha256=sha256, load=segmenter_loader(settings.model, sha256))


def segmenter_loader(model: ModelSettings, sha256: str) -> LoadSegmenter:
    """Loads `model` from its checkpoint in the store, or from the bundled weights, which must be those of the plan."""
    return partial(_load, model, sha256)


def _load(model: ModelSettings, sha256: str, store: Store) -> TorchSegmenter:
    try:
        segmenter = load_segmenter(
            name=model.name, checkpoint=_read(model, store), device=model.device, precision=model.precision
        )
    except CheckpointError as error:
        raise ConfigError(_about(model, error)) from error
    if segmenter.weights_sha256 != sha256:
        here, there = segmenter.weights_sha256[:12], sha256[:12]
        raise ConfigError(
            f"model.checkpoint={model.checkpoint} has sha256 {here} on this machine and {there} where the run began; "
            "put it where all machines read the same"
        )
    return segmenter


def checkpoint_sha256(model: ModelSettings, store: Store) -> str:
    """What the weights are, checked without making a model of them. Raises ConfigError if they cannot be used."""
    try:
        return checked_sha256(model.name, _read(model, store))
    except CheckpointError as error:
        raise ConfigError(_about(model, error)) from error


def _about(model: ModelSettings, error: CheckpointError) -> str:
    return str(error) if model.checkpoint is None else f"model.checkpoint={model.checkpoint}: {error}"


def _read(model: ModelSettings, store: Store) -> bytes | None:
    """The checkpoint's bytes, None for the bundled weights."""
    if model.checkpoint is None:
        return None
    try:
        return store.read(model.checkpoint)
    except (NotFoundError, DeniedError) as error:
        raise ConfigError(f"model.checkpoint={model.checkpoint} cannot be read: {error}") from error
