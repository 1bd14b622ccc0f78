"""Indexing many shards at once: the same as one after the other, whatever happens to the helpers."""

from __future__ import annotations

import os
import signal
import tarfile
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.errors import ConfigError, RunError
from pipeline.plan.scan import SHARDS_WORTH_PROCESSES, index_shards
from pipeline.settings import StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.shards import ShardSource, find_shards, index_shard
from pipeline.storage.store import Store
from tests.fakes_run import write_tar


class DeadlyStore(RoutedStore):
    """Kills the process that opens `07.tar`."""

    def __reduce__(self) -> tuple[type[RoutedStore], tuple[StoreSettings, str]]:
        return DeadlyStore, (StoreSettings(), "")

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        if uri.endswith("07.tar"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open(uri, etag=etag)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tars")
    for number in range(SHARDS_WORTH_PROCESSES + 1):
        write_tar(folder / f"{number:02d}.tar", {f"sa_{number}.jpg": b"x" * number, f"{number}.json": b""})
    return folder


def indexes(shards: list[ShardSource], store: Store) -> list[tuple[list[bytes], int]]:
    return [([piece.data for piece in found.pieces], found.ignored_count) for found in index_shards(shards, store)]


def test_many_tars_give_the_indexes_that_one_after_the_other_gives(tars: Path, store: Store):
    """From here on processes do it; a plan must not depend on how many there are."""
    shards = find_shards(str(tars), store).shards
    alone = [index_shard(shard, store) for shard in shards]
    assert indexes(shards, store) == [([p.data for p in found.pieces], found.ignored_count) for found in alone]
    assert [found.ignored_count for found in alone] == [1] * len(shards)


def test_what_is_wrong_with_one_of_many_tars_is_said_by_its_name(tars: Path, store: Store, tmp_path: Path):
    """An exception must find its way out of another process."""
    with tarfile.open(tmp_path / "packed.tar", "w:gz"):
        pass
    with pytest.raises(ConfigError, match=r"packed\.tar is compressed"):
        indexes(find_shards(f"{tars},{tmp_path}/packed.tar", store).shards, store)


def test_a_helper_that_is_killed_ends_planning_and_does_not_hang_it(tars: Path):
    """The kernel kills what takes too much memory."""
    store = DeadlyStore(StoreSettings())
    with pytest.raises(RunError, match="repeat the command"):
        indexes(find_shards(str(tars), store).shards, store)
