"""The weights of a run: their hash, found before anything is planned, and how a worker loads its model from them.

Owns the reading of a checkpoint and the comparison with the run's. What a checkpoint may hold, model/load.py decides.
It brings torch, and is imported where a file is to be opened: the driver of a run with the bundled weights opens none.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from model.bundled import CheckedWeights, known_weights
from pipeline.errors import ConfigError, DeniedError, NotFoundError
from pipeline.progress import Progress
from pipeline.settings import ModelSettings, Recipe, Settings
from pipeline.storage.store import Store
from pipeline.storage.uris import is_s3
from pipeline.work.chunk import GenerateMasks
from pipeline.work.loading import Weights
from pipeline.work.node_cache import read_once
from pipeline.work.released import is_fetched, on_a_cluster, with_weights_here

if TYPE_CHECKING:
    from model.load import CheckpointError
    from model.segmenter import TorchSegmenter


def weights_from_settings(settings: Settings, store: Store, *, progress: Progress) -> Weights:
    """Those of a released file or on the Hugging Face Hub are fetched by a run on one machine.

    raises  ConfigError if the model is unknown or its checkpoint cannot be read or fetched
    """
    if is_fetched(settings.model) and settings.run.address != "local":
        raise ConfigError(on_a_cluster(settings.model))
    model = with_weights_here(settings.model, progress)
    checked = checked_weights(model, store)
    load = partial(load_generator, model, checked.sha256)
    return Weights(checked.sha256, load, notes=checked.notes, family=checked.family, layout=checked.layout)


def load_generator(
    model: ModelSettings, sha256: str, store: Store, recipe: Recipe, /, *, threads: int, shared: Path | None = None
) -> GenerateMasks:
    """A model at work on this process's device, ready: its first image takes no longer than the others.

    raises  as `load_model`
    """
    # What a worker alone needs: numba among it, half a second of a driver.
    from pipeline.masks.warm_up import warm_up
    from pipeline.work.device import Device, fix_torch

    fix_torch(threads)
    segmenter = load_model(model, sha256, store, shared)
    warm_up()
    return Device(segmenter, recipe).generate


def load_model(model: ModelSettings, sha256: str, store: Store, shared: Path | None = None) -> TorchSegmenter:
    """`model` from its checkpoint in the store, or from the bundled weights, which must be those of the plan.

    raises  ConfigError; StorageError, which says nothing of other machines
    """
    from model.load import CheckpointError, load_segmenter

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


def checked_weights(model: ModelSettings, store: Store) -> CheckedWeights:
    """What the weights are, checked without making a model of them. Raises ConfigError if they cannot be used."""
    if model.checkpoint is None and (known := known_weights(model.name)):
        return known
    from model.load import CheckpointError, check_weights

    try:
        return check_weights(model.name, _read(model, store))
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
