"""What the S3 store promises, against a real server process. Harm done to it is test_s3_faults.py's."""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from pipeline.errors import ChangedError, NotFoundError
from pipeline.settings import StoreSettings
from pipeline.storage.s3 import S3Store
from pipeline.storage.uris import join, parent, split_s3
from tests.fault_proxy import FaultProxy
from tests.storage.conftest import BODY, overwrite


def test_a_created_object_can_be_read_headed_and_listed_under_its_exact_name(s3_store: S3Store, uri: str) -> None:
    """A key is data: spaces, percent signs, pluses and accents must survive every call."""
    info = s3_store.put_if_absent(uri, BODY)
    assert info is not None
    assert info == s3_store.head(uri)
    assert (info.uri, info.size, bool(info.etag)) == (uri, len(BODY), True)
    assert list(s3_store.list(uri.rpartition("/")[0])) == [info]
    assert s3_store.read(uri, etag=info.etag) == BODY
    assert s3_store.read(uri, offset=1000, length=77, etag=info.etag) == BODY[1000:1077]
    assert s3_store.read(uri, offset=len(BODY) - 5) == BODY[-5:]
    assert s3_store.read(uri, offset=10, length=0) == b""


def test_when_an_object_was_written_is_said_in_utc(s3_store: S3Store, uri: str) -> None:
    """By the store's clock, in whole seconds."""
    before = datetime.now(UTC).replace(microsecond=0)
    s3_store.put_if_absent(uri, b"x")
    assert before <= s3_store.modified(uri) <= datetime.now(UTC)
    assert s3_store.modified(uri).utcoffset() == timedelta(0)
    with pytest.raises(NotFoundError):
        s3_store.modified(f"{uri}-gone")


def test_a_second_creator_loses_and_changes_nothing(s3_store: S3Store, uri: str) -> None:
    """The first writer wins: a committed part never changes."""
    assert s3_store.put_if_absent(uri, b"first")
    assert not s3_store.put_if_absent(uri, b"second")
    assert s3_store.read(uri) == b"first"


def test_only_the_object_that_was_read_is_replaced(s3_store: S3Store, uri: str) -> None:
    """Two that mend one part: the second must not put its own view of the source over the first one's."""
    assert s3_store.replace(uri, b"second", etag="0" * 32) is None
    first = s3_store.put_if_absent(uri, b"first")
    assert first is not None
    second = s3_store.replace(uri, b"second", etag=first.etag)
    assert second == s3_store.head(uri)
    assert s3_store.replace(uri, b"third", etag=first.etag) is None
    assert s3_store.read(uri) == b"second"


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


def test_reads_of_a_replaced_object_are_refused(s3_store: S3Store, s3_client: Any, uri: str) -> None:
    """The plan names an identity; other bytes under the same name are another image."""
    s3_store.put_if_absent(uri, b"planned")
    etag = s3_store.head(uri).etag
    overwrite(uri, s3_client, b"another")
    with pytest.raises(ChangedError, match="changed"):
        s3_store.read(uri, etag=etag)
    with pytest.raises(ChangedError, match="changed"), s3_store.open(uri, etag=etag) as stream:
        stream.read()


@pytest.mark.parametrize(("offset", "length"), [(2, 100), (50, 1)])
def test_a_range_beyond_the_end_is_a_changed_object(s3_store: S3Store, uri: str, offset: int, length: int) -> None:
    """Fewer bytes than planned must never pass for the image."""
    s3_store.put_if_absent(uri, b"0123456789")
    with pytest.raises(ChangedError):
        s3_store.read(uri, offset=offset, length=length)


def test_an_empty_object_reads_as_no_bytes(s3_store: S3Store, uri: str) -> None:
    """An empty file is a bad image, not a broken s3_store."""
    s3_store.put_if_absent(uri, b"")
    assert s3_store.read(uri) == b""
    with s3_store.open(uri) as stream:
        assert stream.read() == b""


def test_credentials_come_from_a_profile_as_well(
    monkeypatch: pytest.MonkeyPatch, s3_store: S3Store, s3_endpoint: str, uri: str, tmp_path: Path
) -> None:
    """The whole standard chain of boto3 counts, not the two variables alone."""
    s3_store.put_if_absent(uri, b"here")
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


def test_listing_is_recursive_in_byte_order_without_neighbours_and_markers(s3_store: S3Store, s3_bucket: str) -> None:
    """`images` must not list `images2`, and every process must see the same order."""
    names = ["images/b/1.jpg", "images/b.jpg", "images/Z.jpg", "images/é.jpg", "images/\U0001d4b3.jpg", "images/a.jpg"]
    for name in [*names, "images/folder/", "images2/x.jpg"]:
        s3_store.put_if_absent(f"s3://{s3_bucket}/{name}", b"x")
    wanted = [f"s3://{s3_bucket}/{name}" for name in sorted(names, key=str.encode)]
    assert [info.uri for info in s3_store.list(f"s3://{s3_bucket}/images")] == wanted
    assert [info.uri for info in s3_store.list(f"s3://{s3_bucket}/images/")] == wanted


def test_a_listing_of_many_pages_is_whole_and_in_order(
    s3_store: S3Store, proxy: FaultProxy, s3_client: Any, s3_bucket: str
) -> None:
    """A page holds 1,000 keys, and beyond sixteen pages many are asked for at once; here a page holds one."""
    names = [f"many/{name}" for name in [*"012345678ABCDEFabé+% ", "1/é", "1é"]]
    for name in names:
        s3_client.put_object(Bucket=s3_bucket, Key=name, Body=b"x")
    proxy.keys_per_page = 1
    listed = [info.uri for info in s3_store.list(f"s3://{s3_bucket}/many")]
    assert listed == [f"s3://{s3_bucket}/{name}" for name in sorted(names, key=str.encode)]


def test_the_store_pickles_without_client_or_credentials(s3_store: S3Store, uri: str) -> None:
    """It travels to workers on other machines, which have credentials of their own."""
    s3_store.put_if_absent(uri, b"here")
    data = pickle.dumps(s3_store)
    assert b"AWS" not in data
    assert len(data) < 500
    assert pickle.loads(data).read(uri) == b"here"
