"""What store.py promises of every store, asked of the disk and of a real S3 server. What each alone can do to us,
test_local.py and test_s3.py ask."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ChangedError, NotFoundError
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from tests.storage.conftest import BODY, overwrite


@dataclass(frozen=True)
class Place:
    """A store and an empty place in it. `overwrite` is what a user does behind the store's back."""

    store: Store
    base: str
    overwrite: Callable[[str, bytes], object]

    def __truediv__(self, name: str) -> str:
        return f"{self.base}/{name}"


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The store as a worker has it, which gets it pickled."""
    if request.param == "disk":
        store = connect(StoreSettings())
        return Place(pickle.loads(pickle.dumps(store)), str(tmp_path), lambda uri, data: Path(uri).write_bytes(data))
    endpoint, bucket = request.getfixturevalue("s3_endpoint"), request.getfixturevalue("s3_bucket")
    client: Any = request.getfixturevalue("s3_client")
    store = connect(StoreSettings(endpoint_url=endpoint))
    pickled = pickle.dumps(store)
    assert b"AWS" not in pickled, "workers have credentials of their own"
    return Place(pickle.loads(pickled), f"s3://{bucket}/in", lambda uri, data: overwrite(uri, client, data))


NAME = "new/deep/50%25+%20 é &.bin"
"""A name is data: spaces, percent signs, pluses and accents must survive every call."""


def test_a_created_object_can_be_read_headed_and_listed_under_its_exact_name(place: Place) -> None:
    uri = place / NAME
    info = place.store.put_if_absent(uri, BODY)
    assert info is not None
    assert info == place.store.head(uri)
    assert (info.uri, info.size, bool(info.etag)) == (uri, len(BODY), True)
    assert list(place.store.list(place.base)) == list(place.store.list(f"{place.base}/")) == [info]
    assert place.store.read(uri, etag=info.etag) == BODY
    assert place.store.read(uri, offset=1000, length=77, etag=info.etag) == BODY[1000:1077]
    assert place.store.read(uri, offset=len(BODY) - 5) == BODY[-5:]
    assert place.store.read(uri, offset=10, length=0) == b""
    with place.store.open(uri, etag=info.etag) as stream:
        assert stream.read() == BODY


def test_when_an_object_was_written_is_said_in_utc(place: Place) -> None:
    """By the store's clock, in whole seconds on S3."""
    before = datetime.now(UTC).replace(microsecond=0)
    place.store.put_if_absent(place / "a", b"x")
    assert before <= place.store.modified(place / "a") <= datetime.now(UTC) + timedelta(seconds=1)
    assert place.store.modified(place / "a").utcoffset() == timedelta(0)


def test_a_second_creator_loses_and_changes_nothing(place: Place) -> None:
    """The first writer wins: a committed part never changes."""
    assert place.store.put_if_absent(place / "part", b"first")
    assert not place.store.put_if_absent(place / "part", b"second")
    assert place.store.read(place / "part") == b"first"


def test_of_16_concurrent_creators_exactly_one_wins_and_its_bytes_stay(place: Place) -> None:
    """Two workers may finish the same chunk at the same moment."""
    for turn in range(3):
        uri, won, gate = place / f"{turn}/part", list[int](), threading.Barrier(16)

        def create(writer: int, uri: str = uri, won: list[int] = won, gate: threading.Barrier = gate) -> None:
            gate.wait()
            if place.store.put_if_absent(uri, bytes([writer]) * 100_000):
                won.append(writer)

        threads = [threading.Thread(target=create, args=(writer,)) for writer in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert place.store.read(uri) == bytes([won[0]]) * 100_000
        assert [info.uri for info in place.store.list(place / str(turn))] == [uri]


def test_an_object_that_was_replaced_behind_our_back_is_refused(place: Place) -> None:
    """The plan names an identity; other bytes under the same name, as many, are another image."""
    info = place.store.put_if_absent(place / "a.jpg", b"planned")
    assert info is not None
    place.overwrite(place / "a.jpg", b"another")
    for offset in (0, 3):
        with pytest.raises(ChangedError, match="changed"):
            place.store.read(place / "a.jpg", offset=offset, etag=info.etag)
    with pytest.raises(ChangedError, match="changed"), place.store.open(place / "a.jpg", etag=info.etag) as stream:
        stream.read()
    assert place.store.read(place / "a.jpg") == b"another", "nobody said which version it should be"


def test_only_the_object_that_is_meant_is_replaced(place: Place) -> None:
    """A retry of failed rows and another driver's may meet: the second must see that the first was there."""
    old = place.store.put_if_absent(place / "part", b"old")
    assert old is not None
    new = place.store.replace(place / "part", b"newer", etag=old.etag)
    assert new is not None
    assert new == place.store.head(place / "part")
    assert new.etag != old.etag
    assert place.store.replace(place / "part", b"late", etag=old.etag) is None
    assert place.store.read(place / "part") == b"newer"
    assert place.store.replace(place / "none", b"x", etag=old.etag) is None
    assert [info.uri for info in place.store.list(place.base)] == [place / "part"]


@pytest.mark.parametrize(("offset", "length"), [(2, 100), (50, 1)])
def test_a_range_beyond_the_end_is_a_changed_object(place: Place, offset: int, length: int) -> None:
    """Fewer bytes than planned must never pass for the image."""
    place.store.put_if_absent(place / "a", b"0123456789")
    with pytest.raises(ChangedError, match=f"ends at byte 10, but {offset + length} bytes were planned|changed"):
        place.store.read(place / "a", offset=offset, length=length)


def test_an_empty_object_reads_as_no_bytes(place: Place) -> None:
    """An empty file is a bad image, not a broken store."""
    place.store.put_if_absent(place / "a", b"")
    assert place.store.read(place / "a") == b""
    with place.store.open(place / "a") as stream:
        assert stream.read() == b""


def test_what_is_not_there_is_said_so_and_lists_as_nothing(place: Place) -> None:
    for ask in (place.store.head, place.store.read, place.store.modified, lambda uri: place.store.open(uri).read()):
        with pytest.raises(NotFoundError):
            ask(place / "none")
    assert list(place.store.list(place / "none")) == []


def test_what_is_deleted_is_gone_and_may_be_deleted_again(place: Place) -> None:
    place.store.put_if_absent(place / "a", b"x")
    for _ in range(2):
        place.store.delete(place / "a")
        assert list(place.store.list(place.base)) == []


def test_listing_is_recursive_in_byte_order_without_neighbours(place: Place) -> None:
    """`images` must not list `images2`. On the disk `b.jpg` comes before `b/1.jpg` as on S3, and capitals first."""
    names = [
        "images/b/1.jpg",
        "images/b.jpg",
        "images/Z.jpg",
        "images/é.jpg",
        "images/\U0001d4b3.jpg",
        "images/b-1.jpg",
    ]
    for name in [*names, "images2/x.jpg"]:
        place.store.put_if_absent(place / name, b"x")
    wanted = [place / name for name in sorted(names, key=str.encode)]
    assert [info.uri for info in place.store.list(place / "images")] == wanted
    assert [info.uri for info in place.store.list(place / "images/")] == wanted


def test_a_stream_becomes_one_object_in_the_place_of_an_earlier_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is larger than memory is written piece by piece; on S3 in parts, of which readers see none."""
    monkeypatch.setattr("pipeline.storage.s3_multipart.PART_BYTES", 5 * 2**20)
    uri = place / NAME
    assert place.store.put_stream(uri, iter(())).size == 0
    assert place.store.read(uri) == b""
    for pieces in ([BODY], [BODY] * 12, [BODY * 5], [BODY * 11, b"", b"end"]):
        info = place.store.put_stream(uri, iter(pieces))
        assert info == place.store.head(uri)
        assert place.store.read(uri, etag=info.etag) == b"".join(pieces)


def test_a_stream_that_breaks_off_leaves_the_earlier_object_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file must never count."""
    monkeypatch.setattr("pipeline.storage.s3_multipart.PART_BYTES", 5 * 2**20)
    uri = place / NAME

    def broken() -> Iterator[bytes]:
        yield BODY * 11
        raise NotFoundError("a piece is gone")

    with pytest.raises(NotFoundError, match="a piece is gone"):
        place.store.put_stream(uri, broken())
    assert list(place.store.list(place.base)) == []
    place.store.put_if_absent(uri, b"first")
    with pytest.raises(NotFoundError, match="a piece is gone"):
        place.store.put_stream(uri, broken())
    assert place.store.read(uri) == b"first"
    assert [info.uri for info in place.store.list(place.base)] == [uri]
