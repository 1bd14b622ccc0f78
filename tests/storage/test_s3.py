"""The S3 store against a real server process, with a proxy between them that does harm on cue."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from pipeline.errors import ChangedError, ConfigError, DeniedError, NotFoundError, StorageError
from pipeline.settings import StoreSettings
from pipeline.storage.s3 import S3Store
from pipeline.storage.uris import join, parent, split_s3
from tests.fault_proxy import Answer, Break, Cut, FaultProxy, Stall, fault_proxy

SLOW_DOWN = Answer(503, "SlowDown")
BODY = bytes(range(256)) * 4096  # 1 MiB, no two places alike within a period


@pytest.fixture(scope="module")
def running_proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with fault_proxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def store(running_proxy: FaultProxy) -> S3Store:
    return S3Store(StoreSettings(endpoint_url=running_proxy.url, retry_deadline_s=20))


@pytest.fixture(autouse=True)
def proxy(running_proxy: FaultProxy) -> FaultProxy:
    running_proxy.forget()
    return running_proxy


@pytest.fixture
def uri(s3_bucket: str) -> str:
    return f"s3://{s3_bucket}/data/part é+%20 &.parquet"


def test_a_created_object_can_be_read_headed_and_listed_under_its_exact_name(store: S3Store, uri: str) -> None:
    """A key is data: spaces, percent signs, pluses and accents must survive every call."""
    assert store.put_if_absent(uri, BODY)
    info = store.head(uri)
    assert (info.uri, info.size) == (uri, len(BODY))
    assert list(store.list(uri.rpartition("/")[0])) == [info]
    assert store.read(uri, etag=info.etag) == BODY
    assert store.read(uri, offset=1000, length=77, etag=info.etag) == BODY[1000:1077]
    assert store.read(uri, offset=len(BODY) - 5) == BODY[-5:]
    assert store.read(uri, offset=10, length=0) == b""


def test_a_second_creator_loses_and_changes_nothing(store: S3Store, uri: str) -> None:
    """The first writer wins: a committed part never changes."""
    assert store.put_if_absent(uri, b"first")
    assert not store.put_if_absent(uri, b"second")
    assert store.read(uri) == b"first"


def test_of_16_concurrent_creators_exactly_one_wins_and_its_bytes_stay(s3_endpoint: str, s3_bucket: str) -> None:
    """Two workers may finish the same chunk at the same moment."""
    store, uri = S3Store(StoreSettings(endpoint_url=s3_endpoint)), f"s3://{s3_bucket}/race"
    won: list[int] = []
    gate = threading.Barrier(16)

    def create(writer: int) -> None:
        gate.wait()
        if store.put_if_absent(uri, f"writer {writer}".encode()):
            won.append(writer)

    threads = [threading.Thread(target=create, args=(writer,)) for writer in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read(uri) == f"writer {won[0]}".encode()


@pytest.mark.parametrize(
    "harm",
    [
        SLOW_DOWN,
        Answer(500, "InternalError"),
        Answer(429, "TooManyRequests"),
        Answer(400, "RequestTimeout"),
        Answer(409, "ConditionalRequestConflict"),
        Answer(400, "BadDigest"),
        Break.BEFORE,
        Break.HALF_BODY,
    ],
    ids=str,
)
def test_a_create_that_fails_twice_is_tried_again_and_wins(
    store: S3Store, proxy: FaultProxy, uri: str, harm: Answer | Break
) -> None:
    """Stores push back, lines break; a chunk's minutes of GPU work must not be lost to that."""
    proxy.harm("PUT", harm, harm)
    assert store.put_if_absent(uri, BODY)
    assert store.read(uri) == BODY
    assert [line for line in proxy.seen if line.startswith("PUT")] == [f"PUT {harm}", f"PUT {harm}", "PUT passed"]


def test_a_create_whose_answer_was_lost_is_known_as_our_own(store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """The second try meets the object of the first; calling that lost would disown our own part."""
    proxy.harm("PUT", Break.LOST_ANSWER)
    assert store.put_if_absent(uri, BODY)
    assert proxy.seen == [f"PUT {Break.LOST_ANSWER}", "PUT passed", "HEAD passed"]


def test_a_create_after_a_lost_answer_loses_to_an_object_of_somebody_else(
    store: S3Store, proxy: FaultProxy, uri: str
) -> None:
    """A 412 alone does not say whose object it is; the token in it does."""
    assert store.put_if_absent(uri, b"theirs")
    proxy.harm("PUT", SLOW_DOWN)
    assert not store.put_if_absent(uri, b"theirs")
    assert store.read(uri) == b"theirs"


def test_a_create_that_conflicts_and_then_loses_says_so(store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """409 means that the race is not decided yet; only the next answer decides it."""
    assert store.put_if_absent(uri, b"theirs")
    proxy.harm("PUT", Answer(409, "ConditionalRequestConflict"))
    assert not store.put_if_absent(uri, b"ours")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_reads_and_heads_survive_pushback_and_resets(store: S3Store, proxy: FaultProxy, uri: str, method: str) -> None:
    """The same patience for reading as for writing."""
    store.put_if_absent(uri, BODY)
    proxy.harm(method, SLOW_DOWN, Break.BEFORE, Break.LOST_ANSWER)
    assert store.head(uri).size == len(BODY)
    assert store.read(uri, offset=5, length=100_000) == BODY[5:100_005]


def test_a_listing_survives_pushback(store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """Resuming a run stands on the listing of its parts."""
    store.put_if_absent(uri, b"x")
    proxy.harm("GET", SLOW_DOWN, Break.BEFORE)
    assert [info.uri for info in store.list(uri.rpartition("/")[0])] == [uri]


def test_a_read_whose_body_breaks_resumes_at_its_offset(store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """boto3 does not retry bodies; a range must come back whole and in order anyway."""
    store.put_if_absent(uri, BODY)
    proxy.harm("GET", Cut(300_000), Cut(1), Cut(0))
    assert store.read(uri, offset=100, length=1_000_000) == BODY[100:1_000_100]
    assert sum(line.startswith("GET") for line in proxy.seen) == 4


def test_a_stream_whose_body_breaks_resumes_at_its_offset(store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """A tar of 10 GB must not start again at its first byte."""
    store.put_if_absent(uri, BODY)
    proxy.harm("GET", Cut(200_000), SLOW_DOWN, Cut(300_001))
    with store.open(uri) as stream:
        pieces = iter(lambda: stream.read(65_537), b"")
        assert b"".join(pieces) == BODY


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


def test_a_stream_never_splices_two_versions_of_an_object(
    store: S3Store, proxy: FaultProxy, s3_client: Any, uri: str
) -> None:
    """If the object is replaced while the line is broken, going on would join halves of two files."""
    store.put_if_absent(uri, BODY)
    proxy.harm("GET", Cut(200_000))
    with store.open(uri) as stream:
        assert stream.read(100_000) == BODY[:100_000]
        _overwrite(uri, s3_client, BODY[::-1])
        with pytest.raises(ChangedError, match="changed"):
            stream.read()


def test_reads_of_a_replaced_object_are_refused(store: S3Store, s3_client: Any, uri: str) -> None:
    """The plan names an identity; other bytes under the same name are another image."""
    store.put_if_absent(uri, b"planned")
    etag = store.head(uri).etag
    _overwrite(uri, s3_client, b"another")
    with pytest.raises(ChangedError, match="changed"):
        store.read(uri, etag=etag)
    with pytest.raises(ChangedError, match="changed"), store.open(uri, etag=etag) as stream:
        stream.read()


@pytest.mark.parametrize(("offset", "length"), [(2, 100), (50, 1)])
def test_a_range_beyond_the_end_is_a_changed_object(store: S3Store, uri: str, offset: int, length: int) -> None:
    """Fewer bytes than planned must never pass for the image."""
    store.put_if_absent(uri, b"0123456789")
    with pytest.raises(ChangedError):
        store.read(uri, offset=offset, length=length)


def test_an_empty_object_reads_as_no_bytes(store: S3Store, uri: str) -> None:
    """An empty file is a bad image, not a broken store."""
    store.put_if_absent(uri, b"")
    assert store.read(uri) == b""
    with store.open(uri) as stream:
        assert stream.read() == b""


def test_a_missing_object_and_a_missing_bucket_are_named(store: S3Store, s3_bucket: str) -> None:
    """The two have different cures."""
    with pytest.raises(NotFoundError, match="does not exist"):
        store.head(f"s3://{s3_bucket}/none.tar")
    with pytest.raises(NotFoundError, match="does not exist"):
        store.read(f"s3://{s3_bucket}/none.tar")
    with pytest.raises(NotFoundError, match="no bucket 'no-such-bucket'; create it"):
        store.put_if_absent("s3://no-such-bucket/part", b"")
    with pytest.raises(NotFoundError, match="no bucket 'no-such-bucket'"):
        list(store.list("s3://no-such-bucket/"))
    assert list(store.list(f"s3://{s3_bucket}/nothing/here")) == []


def test_a_refusal_stops_at_once_and_says_what_to_check(store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """Trying again for a quarter of an hour gives nobody rights."""
    proxy.harm("PUT", Answer(403, "AccessDenied"))
    with pytest.raises(DeniedError, match="check the credentials"):
        store.put_if_absent(uri, b"")
    proxy.harm("GET", Answer(403, "AccessDenied"))
    with pytest.raises(DeniedError, match="check the credentials"):
        store.read(uri)
    assert len(proxy.seen) == 2


def test_a_store_without_conditional_writes_is_a_configuration_error(
    store: S3Store, proxy: FaultProxy, uri: str
) -> None:
    """Waiting cannot mend it."""
    proxy.harm("PUT", Answer(501, "NotImplemented"))
    with pytest.raises(ConfigError, match="choose another"):
        store.put_if_absent(uri, b"")


@pytest.mark.parametrize("endpoint", ["no address", "http://under_score:x"])
def test_settings_without_a_client_are_a_configuration_error(endpoint: str) -> None:
    """Nothing can be asked of any store then, so it is not this object's fault."""
    with pytest.raises(ConfigError, match=r"check store\.endpoint_url"):
        S3Store(StoreSettings(endpoint_url=endpoint)).read("s3://bucket/key")


def test_a_bucket_of_another_region_is_out_of_reach_by_itself(store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """A list may name buckets of many regions: one image that cannot be had must not cost its chunk the others."""
    elsewhere = Answer(301, "PermanentRedirect")
    proxy.harm("GET", elsewhere, elsewhere)
    with pytest.raises(DeniedError, match=r"set store\.region"):
        store.read(uri)


@pytest.mark.parametrize("code", ["KeyTooLongError", "InvalidBucketName", "InvalidURI"])
def test_a_name_that_the_store_cannot_hold_is_not_found(store: S3Store, proxy: FaultProxy, uri: str, code: str) -> None:
    """One absurd line in a list is one row, whatever the store's word for it."""
    proxy.harm("GET", Answer(400, code))
    with pytest.raises(NotFoundError, match="cannot exist"):
        store.read(uri)


def test_a_bucket_that_cannot_be_asked_for_is_not_found(store: S3Store) -> None:
    """boto3 refuses such a name before any request."""
    with pytest.raises(NotFoundError, match="cannot exist"):
        store.read("s3://under score/a.jpg")


def test_patience_ends_at_the_deadline(proxy: FaultProxy, uri: str) -> None:
    """A chunk is given back rather than held for ever; the message says what was tried."""
    store = S3Store(StoreSettings(endpoint_url=proxy.url, retry_deadline_s=0.5))
    proxy.harm("PUT", *[SLOW_DOWN] * 50)
    with pytest.raises(StorageError, match=r"503 SlowDown \(\d+ tries in"):
        store.put_if_absent(uri, b"")


def test_a_store_that_nobody_listens_at_is_named_with_its_address(s3_endpoint: str) -> None:
    """The commonest mistake is a wrong endpoint."""
    del s3_endpoint  # for its credentials
    store = S3Store(StoreSettings(endpoint_url="http://127.0.0.1:9", retry_deadline_s=0.3))
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9.*check store\.endpoint_url"):
        store.head("s3://bucket/key")


def test_missing_credentials_are_said_with_the_cure(monkeypatch: pytest.MonkeyPatch, s3_endpoint: str) -> None:
    """boto3 finds out at the first request only."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DeniedError, match="AWS_ACCESS_KEY_ID"):
        S3Store(StoreSettings(endpoint_url=s3_endpoint)).head("s3://bucket/key")


def test_credentials_come_from_a_profile_as_well(
    monkeypatch: pytest.MonkeyPatch, store: S3Store, s3_endpoint: str, uri: str, tmp_path: Path
) -> None:
    """The whole standard chain of boto3 counts, not the two variables alone."""
    store.put_if_absent(uri, b"here")
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert S3Store(StoreSettings(endpoint_url=s3_endpoint)).read(uri) == b"here"


def test_an_access_point_may_stand_for_a_bucket(s3_client: Any) -> None:
    """Its ARN has a slash, which is no boundary between bucket and key; boto3 knows where to find it."""
    point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/photos"
    assert split_s3(f"s3://{point}/in/a b.jpg") == (point, "in/a b.jpg")
    assert split_s3(f"s3://{point}") == split_s3(f"s3://{point}/") == (point, "")
    assert join(f"s3://{point}/", "a.jpg") == f"s3://{point}/a.jpg"
    assert parent(f"s3://{point}/a.jpg") == f"s3://{point}"
    outpost = "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-1/accesspoint/photos"
    assert split_s3(f"s3://{outpost}/k") == (outpost, "k")
    assert split_s3("s3://arn/aws") == ("arn", "aws")
    aws = Session().client("s3", region_name="eu-west-1")
    url = aws.generate_presigned_url("get_object", Params={"Bucket": point, "Key": "a.jpg"})
    assert url.startswith("https://photos-123456789012.s3-accesspoint.eu-west-1.amazonaws.com/a.jpg?")


def test_listing_is_recursive_in_byte_order_without_neighbours_and_markers(store: S3Store, s3_bucket: str) -> None:
    """`images` must not list `images2`, and every process must see the same order."""
    names = ["images/b/1.jpg", "images/b.jpg", "images/Z.jpg", "images/é.jpg", "images/\U0001d4b3.jpg", "images/a.jpg"]
    for name in [*names, "images/folder/", "images2/x.jpg"]:
        store.put_if_absent(f"s3://{s3_bucket}/{name}", b"x")
    wanted = [f"s3://{s3_bucket}/{name}" for name in sorted(names, key=str.encode)]
    assert [info.uri for info in store.list(f"s3://{s3_bucket}/images")] == wanted
    assert [info.uri for info in store.list(f"s3://{s3_bucket}/images/")] == wanted


def test_a_listing_of_many_pages_is_whole_and_in_order(
    store: S3Store, proxy: FaultProxy, s3_client: Any, s3_bucket: str
) -> None:
    """A page holds 1,000 keys, and beyond sixteen pages many are asked for at once; here a page holds one."""
    names = [f"many/{name}" for name in [*"012345678ABCDEFabé+% ", "1/é", "1é"]]
    for name in names:
        s3_client.put_object(Bucket=s3_bucket, Key=name, Body=b"x")
    proxy.keys_per_page = 1
    listed = [info.uri for info in store.list(f"s3://{s3_bucket}/many")]
    assert listed == [f"s3://{s3_bucket}/{name}" for name in sorted(names, key=str.encode)]


def test_the_store_pickles_without_client_or_credentials(store: S3Store, uri: str) -> None:
    """It travels to workers on other machines, which have credentials of their own."""
    store.put_if_absent(uri, b"here")
    data = pickle.dumps(store)
    assert b"AWS" not in data
    assert len(data) < 500
    assert pickle.loads(data).read(uri) == b"here"


def _overwrite(uri: str, client: Any, body: bytes) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client.put_object(Bucket=bucket, Key=key, Body=body)
