"""Trying out a store: what it does is seen, and nothing of the trial stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import NotFoundError
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.probe import Creation, try_creation
from pipeline.storage.store import Store
from tests.fault_proxy import Answer, Break, FaultProxy, Weakness, fault_proxy


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with fault_proxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy) -> Store:
    return connect(StoreSettings(endpoint_url=proxy.url))


@pytest.mark.parametrize(
    ("weakness", "expected"),
    [
        (Weakness.NONE, Creation.EXCLUSIVE),
        (Weakness.IGNORES, Creation.OVERWRITES),
        (Weakness.RACES, Creation.RACES),
    ],
)
def test_a_store_is_seen_for_what_it_is(
    store: Store, proxy: FaultProxy, s3_client: Any, s3_bucket: str, weakness: Weakness, expected: Creation
) -> None:
    """Stores of all three kinds call themselves compatible; a bucket is left as it was."""
    proxy.weakness = weakness
    assert try_creation(f"s3://{s3_bucket}/out", store, rounds=2) is expected
    assert s3_client.list_objects_v2(Bucket=s3_bucket)["KeyCount"] == 0


def test_a_good_store_with_a_bad_line_is_still_a_good_store(store: Store, proxy: FaultProxy, s3_bucket: str) -> None:
    """A lost answer or a conflict must not pass for a second winner."""
    harms = [Break.LOST_ANSWER, Answer(409, "ConditionalRequestConflict"), Answer(503, "SlowDown"), Break.BEFORE]
    proxy.harm("PUT", *harms)
    assert try_creation(f"s3://{s3_bucket}/out", store, rounds=1) is Creation.EXCLUSIVE
    assert sum(line != "PUT passed" for line in proxy.seen if line.startswith("PUT")) == 4


def test_a_bucket_that_is_not_there_is_said_so(store: Store) -> None:
    """Before hours of planning."""
    with pytest.raises(NotFoundError, match="no bucket 'nowhere-at-all'"):
        try_creation("s3://nowhere-at-all/out", store)


def test_the_local_disk_keeps_writers_apart(tmp_path: Path) -> None:
    """The same trial, other backend."""
    assert try_creation(str(tmp_path), connect(StoreSettings())) is Creation.EXCLUSIVE
    assert list(tmp_path.iterdir()) == []
