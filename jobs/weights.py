"""The released weights of a model, fetched and checked: `python -m jobs.weights name=vit_h [to=s3://bucket/weights]`.

Or a file of the Hugging Face Hub: name=hf://owner/name@revision/file.
Exit codes: 0 the file is there, a released one with the size and SHA-256 that were published; 2 there is no such file,
or it cannot be fetched or put there. What has come of a broken download stays, and the same command goes on from it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobs.command import run_command
from model.released import RELEASED
from pipeline.errors import ConfigError, NotFoundError, StorageError
from pipeline.progress import progress_on
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from pipeline.storage.uris import join
from pipeline.texts import printable
from pipeline.work.hub import is_on_hub
from pipeline.work.released import fetched

PIECE = 2**24
"""Bytes of the file that are held while it is copied."""


@dataclass(frozen=True)
class WeightsJob:
    """What the command takes."""

    name: str = ""
    """A model of SAM 1 or SAM 2 (vit_b, sam2.1_tiny and so on, docs/models.md), or hf://owner/name@revision/file."""
    to: str = ""
    """A folder or s3:// prefix that gets a copy, for machines that share it. Without it the file is in the user's cache
    folder, where a run on this machine finds it by itself."""
    store: StoreSettings = field(default_factory=StoreSettings)


def weights(job: WeightsJob) -> int:
    """Fetch the file if it is not there, copy it if that is asked for, say where it is."""
    if job.name not in RELEASED and not is_on_hub(job.name):
        asked = f"there is no released file of name={job.name}" if job.name else "say which model: name=..."
        raise ConfigError(f"{asked}; there are {', '.join(RELEASED)}")
    progress, place = progress_on(sys.stderr), ""
    try:
        path = fetched(job.name, progress)
        if job.to:
            progress.say(f"copying {path.name} to {job.to}")
            place = _copied(path, job)
    finally:
        progress.close()
    sys.stdout.write(printable(f"Maskmill: {place or path} is {_use(job.name, place)}") + "\n")
    return 0


def _use(name: str, place: str) -> str:
    """What the file is and how a run takes it from `place`, or from this machine if that is empty."""
    if is_on_hub(name):
        return f"the file {name}; use it with model=... model.checkpoint={place or name}"
    return f"the released file; use it with model={name}" + (f" model.checkpoint={place}" if place else "")


def _copied(path: Path, job: WeightsJob) -> str:
    """Where the copy is. One of this name and size is left as it is: whoever loads it checks the hash of its run.

    raises  ConfigError
    """
    store, uri = connect(job.store), join(job.to, path.name)
    try:
        if not _is_there(uri, path.stat().st_size, store):
            store.put_stream(uri, _pieces(path))
    except StorageError as error:
        raise ConfigError(f"to={job.to} cannot be written: {error}") from error
    return uri


def _is_there(uri: str, size: int, store: Store) -> bool:
    try:
        return store.head(uri).size == size
    except NotFoundError:
        return False


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def main() -> int:
    return run_command("weights", WeightsJob, weights)


if __name__ == "__main__":
    sys.exit(main())
