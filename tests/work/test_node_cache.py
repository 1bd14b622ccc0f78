"""What the workers of one node read once: the copy, its lock, and all that may be wrong with either."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from model.load import BUNDLED
from pipeline.settings import ModelSettings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.work.node_cache import LOCK, UNFINISHED, read_once
from pipeline.work.weights import load_model

DATA = b"weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Source:
    """The store: counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> bytes:
        self.reads += 1
        return DATA


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class S3Reads(RoutedStore):
    """The usual stores; counts what is read."""

    def __init__(self) -> None:
        super().__init__(StoreSettings())
        self.reads = 0

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        self.reads += 1
        return super().read(uri, offset=offset, length=length, etag=etag, limit=limit)


def test_the_second_worker_of_a_node_reads_nothing_from_the_store(
    s3_client: Any, s3_bucket: str, s3_endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A thousand workers would read 2.5 TB of one object at the same moment; after the first, it may even be gone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    data = BUNDLED["small"].read_bytes()
    s3_client.put_object(Bucket=s3_bucket, Key="small.safetensors", Body=data)
    model = ModelSettings(checkpoint=f"s3://{s3_bucket}/small.safetensors", device="cpu")
    load, store = partial(load_model, model, hashlib.sha256(data).hexdigest()), S3Reads()
    load(store, folder)
    s3_client.delete_object(Bucket=s3_bucket, Key="small.safetensors")
    assert load(store, folder).outputs_per_prompt == 3
    assert store.reads == 1


def test_a_checkpoint_on_a_disk_is_not_copied(store: RoutedStore, folder: Path):
    """A laptop's disk has it already."""
    data = BUNDLED["small"].read_bytes()
    model = ModelSettings(checkpoint=str(BUNDLED["small"]), device="cpu")
    load_model(model, hashlib.sha256(data).hexdigest(), store, folder)
    assert not folder.exists()


def test_two_at_once_are_one_read(source: Source, folder: Path):
    """The second one waits for the first."""
    begun, go = threading.Event(), threading.Event()

    def slowly() -> bytes:
        begun.set()
        assert go.wait(30)
        return source()

    got: list[bytes] = []
    first = threading.Thread(target=lambda: got.append(read_once(SHA256, slowly, folder=folder)))
    second = threading.Thread(target=lambda: got.append(read_once(SHA256, source, folder=folder)))
    first.start()
    assert begun.wait(30)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go.set()
    first.join(30)
    second.join(30)
    assert got == [DATA, DATA]
    assert source.reads == 1


def _die_while_writing(folder: Path) -> None:
    def read() -> bytes:
        (folder / UNFINISHED).write_bytes(DATA[:100])
        os.kill(os.getpid(), 9)
        return DATA

    read_once(SHA256, read, folder=folder)


def test_a_writer_that_is_killed_leaves_neither_a_lock_nor_half_a_copy(source: Source, folder: Path):
    """Ray's out-of-memory killer takes workers while they load."""
    writer = multiprocessing.get_context("spawn").Process(target=_die_while_writing, args=(folder,))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -9
    assert names(folder) == {LOCK, UNFINISHED}
    assert read_once(SHA256, source, folder=folder) == DATA
    assert names(folder) == {LOCK, SHA256}


def cut(copy: Path) -> None:
    copy.write_bytes(DATA[:-1])


def tamper(copy: Path) -> None:
    copy.write_bytes(b"W" + DATA[1:])


def link_elsewhere(copy: Path) -> None:
    copy.rename(copy.parent.parent / "elsewhere")
    copy.symlink_to(copy.parent.parent / "elsewhere")


@pytest.mark.parametrize("harm", [cut, tamper, link_elsewhere])
def test_a_copy_that_is_not_what_it_was_is_read_again(source: Source, folder: Path, harm: Callable[[Path], None]):
    """Other weights would give other masks without a word."""
    read_once(SHA256, source, folder=folder)
    harm(folder / SHA256)
    assert read_once(SHA256, source, folder=folder) == DATA
    assert source.reads == 2


def test_bytes_that_are_not_the_runs_are_not_kept(folder: Path):
    """The loader says what is wrong with them; the next worker asks the store again."""
    assert read_once(SHA256, lambda: b"others", folder=folder) == b"others"
    assert names(folder) == {LOCK}


def test_other_weights_take_the_place_of_the_last_ones(source: Source, folder: Path):
    """A node's disk holds one model and not one of each run."""
    read_once(SHA256, source, folder=folder)
    other = hashlib.sha256(b"other").hexdigest()
    assert read_once(other, lambda: b"other", folder=folder) == b"other"
    assert names(folder) == {LOCK, other}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_costs_a_read_and_nothing_else(source: Source, folder: Path):
    """The write fails in the middle, as on a full disk."""
    with files_of_at_most(1000):
        assert read_once(SHA256, source, folder=folder) == DATA
    assert names(folder) == {LOCK}
    assert read_once(SHA256, source, folder=folder) == DATA
    assert source.reads == 2


def test_a_folder_that_others_may_write_to_is_not_used(source: Source, folder: Path):
    """Nor one that cannot be made."""
    folder.mkdir()
    folder.chmod(0o777)
    assert read_once(SHA256, source, folder=folder) == DATA
    assert names(folder) == set()
    assert read_once(SHA256, source, folder=folder / "not there" / "below") == DATA
