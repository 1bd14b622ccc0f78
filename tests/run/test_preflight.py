"""Before a run: weak stores are found out once, and then a second run at the same time is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.run.preflight import creation_at, only_run
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.probe import Creation
from pipeline.storage.store import Store
from tests.fault_proxy import Answer, FaultProxy, Weakness, fault_proxy

BEAT_S = 0.1


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with fault_proxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3_store(proxy: FaultProxy) -> Store:
    return connect(StoreSettings(endpoint_url=proxy.url, retry_deadline_s=5))


@pytest.fixture
def out(s3_bucket: str) -> str:
    return f"s3://{s3_bucket}/out"


def test_the_verdict_on_a_store_is_reached_once(s3_store: Store, proxy: FaultProxy, out: str):
    """A resume asks one object instead of trying eighty times."""
    proxy.weakness = Weakness.IGNORES
    assert creation_at(out, s3_store) is Creation.OVERWRITES
    proxy.seen.clear()
    assert creation_at(out, s3_store) is Creation.OVERWRITES
    assert proxy.seen == ["GET passed"]


@pytest.mark.parametrize("harm", [Answer(403, "AccessDenied"), Answer(404, "NoSuchBucket")], ids=str)
def test_a_place_that_cannot_be_written_to_is_said_before_the_source_is_read(
    s3_store: Store, proxy: FaultProxy, out: str, harm: Answer
):
    """Listing a source takes minutes to hours, and the user has gone home by then."""
    proxy.harm("PUT", *[harm] * 9)
    with pytest.raises(ConfigError, match=r"check the credentials|create it"):
        creation_at(out, s3_store)


def test_a_local_folder_is_left_alone(store: Store, tmp_path: Any):
    """A command that is refused later should leave nothing behind."""
    assert creation_at(str(tmp_path / "out"), store) is Creation.EXCLUSIVE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("creation", [Creation.OVERWRITES, Creation.RACES])
def test_on_a_weak_store_a_second_run_is_refused_while_the_first_lives(s3_store: Store, out: str, creation: Creation):
    """There, two workers of two runs could overwrite each other's parts under a manifest that is written."""
    said: list[str] = []
    with only_run(out, s3_store, creation, say=said.append, beat_s=BEAT_S):
        refused = pytest.raises(ConfigError, match="another run is at work here")
        with refused, only_run(out, s3_store, creation, say=said.append, beat_s=BEAT_S):
            pytest.fail("two runs at once")
    assert "One run at a time is safe" in said[0]
    assert list(s3_store.list(f"{out}/_job/runs")) == []


def test_on_a_weak_store_the_traces_of_a_killed_run_are_watched_and_then_removed(s3_store: Store, out: str):
    """SIGKILL leaves them, and nobody should have to clean up by hand."""
    s3_store.put_if_absent(f"{out}/_job/runs/{'0' * 32}-17", b"")
    said: list[str] = []
    with only_run(out, s3_store, Creation.OVERWRITES, say=said.append, beat_s=BEAT_S):
        signs = [info.uri for info in s3_store.list(f"{out}/_job/runs")]
        assert signs
        assert not any("0" * 32 in sign for sign in signs)
    assert "another run was here" in said[1]


def test_on_a_good_store_nothing_is_written_or_asked(s3_store: Store, proxy: FaultProxy, out: str):
    """There, any number of runs may work together, and no sign of life decides anything."""
    with only_run(out, s3_store, Creation.EXCLUSIVE, say=pytest.fail):
        assert proxy.seen == []
