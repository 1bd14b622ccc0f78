"""The S3 store when stores push back and lines break: a proxy between it and a real server does harm on cue.

Each test sees in the proxy's log that the harm was done, and how often the store asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import ChangedError, StorageError
from pipeline.settings import StoreSettings
from pipeline.storage.s3 import S3Store
from tests.fault_proxy import Answer, Break, Cut, Drip, FaultProxy, Flip, Harm, Stall, Torn
from tests.storage.conftest import BODY, overwrite

SLOW_DOWN = Answer(503, "SlowDown")
TIMED_OUT = Answer(400, "RequestTimeout")
CONFLICT = Answer(409, "ConditionalRequestConflict")
PASSING = (
    SLOW_DOWN,
    Answer(500, "InternalError"),
    Answer(429, "TooManyRequests"),
    Break.BEFORE,
    Break.CLOSED,
)
"""What may befall any request, and is over when it is made again."""


@pytest.mark.parametrize(
    "harm",
    [*PASSING, TIMED_OUT, CONFLICT, Answer(400, "BadDigest"), Break.HALF_BODY],
    ids=str,
)
def test_a_create_that_fails_twice_is_tried_again_and_wins(
    s3_store: S3Store, proxy: FaultProxy, uri: str, harm: Answer | Break
) -> None:
    """Stores push back, lines break; a chunk's minutes of GPU work must not be lost to that."""
    proxy.harm("PUT", harm, harm)
    assert s3_store.put_if_absent(uri, BODY)
    assert s3_store.read(uri) == BODY
    assert [line for line in proxy.seen if line.startswith("PUT")] == [f"PUT {harm}", f"PUT {harm}", "PUT passed"]


def test_a_create_whose_answer_was_lost_is_known_as_our_own(s3_store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """The second try meets the object of the first; calling that lost would disown our own part."""
    proxy.harm("PUT", Break.LOST_ANSWER)
    created = s3_store.put_if_absent(uri, BODY)
    assert proxy.seen == [f"PUT {Break.LOST_ANSWER}", "PUT passed", "HEAD passed"]
    assert created == s3_store.head(uri)


def test_a_replacement_whose_answer_was_lost_is_known_as_our_own(
    s3_store: S3Store, proxy: FaultProxy, uri: str
) -> None:
    """The second try does not find the object that it was to replace."""
    first = s3_store.put_if_absent(uri, b"first")
    assert first is not None
    proxy.harm("PUT", Break.LOST_ANSWER)
    second = s3_store.replace(uri, BODY, etag=first.etag)
    assert proxy.seen[-3:] == [f"PUT {Break.LOST_ANSWER}", "PUT passed", "HEAD passed"]
    assert second == s3_store.head(uri)


def test_a_create_after_a_lost_answer_loses_to_an_object_of_somebody_else(
    s3_store: S3Store, proxy: FaultProxy, uri: str
) -> None:
    """A 412 alone does not say whose object it is; the token in it does."""
    assert s3_store.put_if_absent(uri, b"theirs")
    proxy.seen.clear()
    proxy.harm("PUT", Break.LOST_ANSWER)
    assert not s3_store.put_if_absent(uri, b"theirs")
    assert proxy.seen == [f"PUT {Break.LOST_ANSWER}", "PUT passed", "HEAD passed"]
    assert s3_store.read(uri) == b"theirs"


def test_a_create_that_conflicts_and_then_loses_says_so(s3_store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """409 means that the race is not decided yet; only the next answer decides it."""
    assert s3_store.put_if_absent(uri, b"theirs")
    proxy.seen.clear()
    proxy.harm("PUT", CONFLICT)
    assert not s3_store.put_if_absent(uri, b"ours")
    assert proxy.seen == [f"PUT {CONFLICT}", "PUT passed", "HEAD passed"]


@pytest.mark.parametrize("harm", [*PASSING, Break.LOST_ANSWER], ids=str)
def test_heads_reads_and_listings_that_fail_are_tried_again(
    s3_store: S3Store, proxy: FaultProxy, uri: str, harm: Harm
) -> None:
    """The same patience for reading as for writing; resuming a run stands on the listing of its parts."""
    s3_store.put_if_absent(uri, BODY)
    proxy.seen.clear()
    for method in ("HEAD", "GET"):
        proxy.harm(method, harm)
    assert s3_store.head(uri).size == len(BODY)
    assert s3_store.read(uri, offset=5, length=100_000) == BODY[5:100_005]
    proxy.harm("GET", harm)
    assert [info.uri for info in s3_store.list(uri.rpartition("/")[0])] == [uri]
    assert proxy.seen == [f"{method} {did}" for method in ("HEAD", "GET", "GET") for did in (harm, "passed")]


def test_a_read_whose_body_breaks_resumes_at_its_offset(s3_store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """boto3 does not retry bodies; a range must come back whole and in order anyway."""
    s3_store.put_if_absent(uri, BODY)
    harms = [TIMED_OUT, Cut(300_000), Torn(200_000), Cut(1), Cut(0), Torn(0)]
    proxy.harm("GET", *harms)
    assert s3_store.read(uri, offset=100, length=1_000_000) == BODY[100:1_000_100]
    assert proxy.seen[1:] == [f"GET {did}" for did in (*harms, "passed")]


def test_a_stream_whose_body_breaks_resumes_at_its_offset(s3_store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """A tar of 10 GB must not start again at its first byte."""
    s3_store.put_if_absent(uri, BODY)
    harms = [Cut(200_000), SLOW_DOWN, Torn(300_001)]
    proxy.harm("GET", *harms)
    with s3_store.open(uri) as stream:
        pieces = iter(lambda: stream.read(65_537), b"")
        assert b"".join(pieces) == BODY
    assert proxy.seen[1:] == [f"GET {did}" for did in (*harms, "passed")]


@pytest.mark.parametrize(
    ("method", "harm"), [("GET", Break.SILENCE), ("GET", Stall(300_000)), ("PUT", Break.SILENCE)], ids=str
)
def test_a_line_on_which_nothing_comes_is_given_up_and_asked_again(
    proxy: FaultProxy, uri: str, method: str, harm: Stall | Break
) -> None:
    """A worker must not wait for ever for a machine that is gone."""
    store = S3Store(StoreSettings(endpoint_url=proxy.url, answer_timeout_s=0.5))
    proxy.harm(method, harm)
    assert store.put_if_absent(uri, BODY)
    assert store.read(uri, length=len(BODY)) == BODY
    assert f"{method} {harm}" in proxy.seen
    assert proxy.seen.count(f"{method} passed") == 1


def test_a_slow_body_is_waited_for_as_long_as_something_comes(proxy: FaultProxy, uri: str) -> None:
    """A throttled line delivers in the end; to break it off and ask again would never finish a large tar."""
    store = S3Store(StoreSettings(endpoint_url=proxy.url, answer_timeout_s=1.0, retry_deadline_s=1.0))
    store.put_if_absent(uri, BODY)
    drip = Drip(pieces=5, pause_s=0.3)
    proxy.harm("GET", drip)
    assert store.read(uri, length=len(BODY)) == BODY
    assert proxy.seen[1:] == [f"GET {drip}"]


def test_a_bit_that_flips_on_the_way_of_a_whole_object_is_found_where_the_store_keeps_checksums(
    monkeypatch: pytest.MonkeyPatch, proxy: FaultProxy, uri: str
) -> None:
    """On AWS, and on what is reached as if it were AWS. Elsewhere the readers' own checksums must find it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    store = S3Store(StoreSettings(retry_deadline_s=20))
    assert store.put_if_absent(uri, BODY)
    flip = Flip(5000)
    proxy.harm("GET", flip, flip)
    with pytest.raises(StorageError, match="do not match their checksum"):
        store.read(uri)
    with pytest.raises(StorageError, match="do not match their checksum"), store.open(uri) as stream:
        stream.read()
    assert store.read(uri) == BODY
    assert proxy.seen[1:] == [f"GET {flip}", f"GET {flip}", "GET passed"]


def test_a_stream_never_splices_two_versions_of_an_object(
    s3_store: S3Store, proxy: FaultProxy, s3_client: Any, uri: str
) -> None:
    """If the object is replaced while the line is broken, going on would join halves of two files."""
    s3_store.put_if_absent(uri, BODY)
    proxy.harm("GET", Cut(200_000))
    with s3_store.open(uri) as stream:
        assert stream.read(100_000) == BODY[:100_000]
        overwrite(uri, s3_client, BODY[::-1])
        with pytest.raises(ChangedError, match="changed"):
            stream.read()
    assert proxy.seen[1:] == ["GET Cut(count=200000)", "GET passed"]


def test_patience_ends_at_the_deadline(proxy: FaultProxy, uri: str) -> None:
    """A chunk is given back rather than held for ever; the message says what was tried."""
    store = S3Store(StoreSettings(endpoint_url=proxy.url, retry_deadline_s=0.5))
    proxy.harm("PUT", *[SLOW_DOWN] * 50)
    with pytest.raises(StorageError, match=r"503 SlowDown \(\d+ tries in"):
        store.put_if_absent(uri, b"")


def test_an_upload_in_parts_outlives_a_failed_part_and_a_lost_answer_to_its_end(
    s3_store: S3Store, proxy: FaultProxy, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of upload must not be lost to the one answer that says that it is done."""
    monkeypatch.setattr("pipeline.storage.s3_multipart.PART_BYTES", 5 * 2**20)

    def pieces() -> Iterator[bytes]:
        yield from [BODY] * 11  # by now the upload has begun
        proxy.harm("PUT", SLOW_DOWN)
        proxy.harm("POST", Break.LOST_ANSWER)
        yield BODY

    info = s3_store.put_stream(uri, pieces())
    assert [line for line in proxy.seen if line.startswith("POST")] == [
        "POST passed",
        f"POST {Break.LOST_ANSWER}",
        "POST passed",
    ]
    assert info == s3_store.head(uri)
    assert s3_store.read(uri) == BODY * 12
