"""The weights of a run: their hash, found before anything is planned, and how a worker loads its model from them.

Owns the reading of a checkpoint and the comparison with the run's. What a checkpoint may hold, model/load.py decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from model.load import CheckpointError, checked_sha256, load_segmenter
from model.segmenter import TorchSegmenter
from pipeline.errors import ConfigError, DeniedError, NotFoundError
from pipeline.masks.segmenter import Segmenter
from pipeline.settings import ModelSettings, Settings
from pipeline.storage.store import Store
from pipeline.storage.uris import is_s3
from pipeline.work.node_cache import read_once


class LoadSegmenter(Protocol):
    """How a worker gets its model, of whatever kind: travels to the worker pickled and is called there once."""

    def __call__(self, store: Store, shared: Path | None = None, /) -> Segmenter[Any]:
        """shared  where the node's workers may leave each other what they have read from the store"""
        ...


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


def _load(model: ModelSettings, sha256: str, store: Store, shared: Path | None = None, /) -> TorchSegmenter:
    """raises  ConfigError; StorageError, which says nothing of other machines"""
    try:
        checkpoint = _read(model, store) if shared is None else _read_once(model, sha256, store, shared)
        segmenter = load_segmenter(
            name=model.name, checkpoint=checkpoint, device=model.device, precision=model.precision
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
    except DeniedError as error:
        raise ConfigError(f"model.checkpoint={model.checkpoint} cannot be read: {error}") from error


def _about(model: ModelSettings, error: CheckpointError) -> str:
    return str(error) if model.checkpoint is None else f"model.checkpoint={model.checkpoint}: {error}"


def _read(model: ModelSettings, store: Store) -> bytes | None:
    """The checkpoint's bytes, None for the bundled weights."""
    return None if model.checkpoint is None else _bytes_at(model.checkpoint, store)


def _read_once(model: ModelSettings, sha256: str, store: Store, shared: Path) -> bytes | None:
    """As `_read`. A file on a disk is not copied: it is on this machine, or a file system keeps it in memory."""
    if model.checkpoint is None or not is_s3(model.checkpoint):
        return _read(model, store)
    return read_once(sha256, partial(_bytes_at, model.checkpoint, store), folder=shared)


def _bytes_at(checkpoint: str, store: Store) -> bytes:
    try:
        return store.read(checkpoint)
    except NotFoundError as error:
        raise ConfigError(f"model.checkpoint={checkpoint} cannot be read: {error}") from error
