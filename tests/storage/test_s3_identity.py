"""Public buckets, and buckets whose readers pay: what each request says of who sends it, seen on the wire."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pipeline.errors import DeniedError
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from tests.fault_proxy import Answer, FaultProxy

IN = "in/a.jpg"


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, s3_endpoint: str) -> None:
    del s3_endpoint  # what it sets is what is taken away
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


@pytest.fixture
def out_bucket(s3_client: Any, s3_bucket: str) -> str:
    name = f"{s3_bucket}-out"
    s3_client.create_bucket(Bucket=name)
    return name


def read_all_ways(store: Store, bucket: str) -> None:
    """A head, a listing, a range, and a stream."""
    uri = f"s3://{bucket}/{IN}"
    assert [info.uri for info in store.list(f"s3://{bucket}/in")] == [uri]
    etag = store.head(uri).etag
    assert store.read(uri, offset=1, length=2, etag=etag) == b"BC"
    assert store.open(uri).read() == b"ABCD"


@pytest.mark.usefixtures("no_credentials")
def test_a_public_bucket_is_read_without_credentials(proxy: FaultProxy, s3_client: Any, s3_bucket: str) -> None:
    """A public data set costs no account; nothing may be signed, as nobody is there who could."""
    s3_client.put_object(Bucket=s3_bucket, Key=IN, Body=b"ABCD", ACL="public-read")
    read_all_ways(connect(StoreSettings(endpoint_url=proxy.url, anonymous=True)), s3_bucket)
    assert len(proxy.headers) == 4
    assert not any("authorization" in headers for _, headers in proxy.headers)


def test_only_the_bucket_of_out_gets_signed_requests(
    proxy: FaultProxy, s3_client: Any, s3_bucket: str, out_bucket: str
) -> None:
    """Credentials of one account are refused by some public buckets, and writing needs them. A worker's store came by
    pickle."""
    s3_client.put_object(Bucket=s3_bucket, Key=IN, Body=b"ABCD", ACL="public-read")
    settings, out = StoreSettings(endpoint_url=proxy.url, anonymous=True), f"s3://{out_bucket}/runs/1"
    store: Store = pickle.loads(pickle.dumps(connect(settings, out=out)))
    read_all_ways(store, s3_bucket)
    assert store.put_if_absent(f"{out}/part", b"part")
    assert not store.put_if_absent(f"{out}/part", b"other")
    assert store.read(f"{out}/part") == b"part"
    assert list(store.list(out))
    signed = {asked: "authorization" in headers for asked, headers in proxy.headers}
    assert signed == {
        f"GET /{s3_bucket}": False,
        f"HEAD /{s3_bucket}/{IN}": False,
        f"GET /{s3_bucket}/{IN}": False,
        f"PUT /{out_bucket}/runs/1/part": True,
        f"HEAD /{out_bucket}/runs/1/part": True,
        f"GET /{out_bucket}/runs/1/part": True,
        f"GET /{out_bucket}": True,
    }


def test_without_the_setting_every_request_is_signed_and_nobody_else_pays(
    proxy: FaultProxy, s3_client: Any, s3_bucket: str
) -> None:
    """The default, for private buckets."""
    s3_client.put_object(Bucket=s3_bucket, Key=IN, Body=b"ABCD", ACL="public-read")
    read_all_ways(connect(StoreSettings(endpoint_url=proxy.url)), s3_bucket)
    assert all("authorization" in headers for _, headers in proxy.headers)
    assert not any("x-amz-request-payer" in headers for _, headers in proxy.headers)


def test_whoever_asks_pays_if_so_set(proxy: FaultProxy, s3_client: Any, s3_bucket: str) -> None:
    """Such a bucket refuses every request that does not say so, a listing as well; and the word must be signed."""
    s3_client.put_object(Bucket=s3_bucket, Key=IN, Body=b"ABCD", ACL="public-read")
    read_all_ways(connect(StoreSettings(endpoint_url=proxy.url, requester_pays=True)), s3_bucket)
    assert len(proxy.headers) == 4
    for _, headers in proxy.headers:
        assert headers["x-amz-request-payer"] == "requester"
        assert "x-amz-request-payer" in headers["authorization"].partition("SignedHeaders=")[2].split(",")[0]


@pytest.mark.usefixtures("no_credentials")
def test_an_unsigned_request_that_is_refused_says_why(proxy: FaultProxy) -> None:
    """Credentials are no cure where none are sent."""
    proxy.harm("GET", Answer(403, "AccessDenied"))
    store = connect(StoreSettings(endpoint_url=proxy.url, anonymous=True))
    with pytest.raises(DeniedError, match=r"store\.anonymous=true .*'private' is not public"):
        store.read("s3://private/a.jpg")
