"""What no second try cures: said at once, with the cure."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError, DeniedError, NotFoundError, StorageError
from pipeline.settings import StoreSettings
from pipeline.storage.s3 import S3Store
from tests.fault_proxy import Answer, FaultProxy


def test_a_missing_object_and_a_missing_bucket_are_named(s3_store: S3Store, s3_bucket: str) -> None:
    """The two have different cures."""
    with pytest.raises(NotFoundError, match="does not exist"):
        s3_store.head(f"s3://{s3_bucket}/none.tar")
    with pytest.raises(NotFoundError, match="does not exist"):
        s3_store.read(f"s3://{s3_bucket}/none.tar")
    with pytest.raises(NotFoundError, match="no bucket 'no-such-bucket'; create it"):
        s3_store.put_if_absent("s3://no-such-bucket/part", b"")
    with pytest.raises(NotFoundError, match="no bucket 'no-such-bucket'"):
        list(s3_store.list("s3://no-such-bucket/"))
    assert list(s3_store.list(f"s3://{s3_bucket}/nothing/here")) == []


def test_a_refusal_stops_at_once_and_says_what_to_check(s3_store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """Trying again for a quarter of an hour gives nobody rights."""
    proxy.harm("PUT", Answer(403, "AccessDenied"))
    with pytest.raises(DeniedError, match="check the credentials"):
        s3_store.put_if_absent(uri, b"")
    proxy.harm("GET", Answer(403, "AccessDenied"))
    with pytest.raises(DeniedError, match="check the credentials"):
        s3_store.read(uri)
    assert len(proxy.seen) == 2


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"])
def test_credentials_that_are_refused_with_another_status_stop_at_once(
    s3_store: S3Store, proxy: FaultProxy, uri: str, code: str
) -> None:
    """AWS answers 400 to a token that has expired, in the middle of a long run; new credentials are the cure."""
    proxy.harm("PUT", Answer(400, code))
    with pytest.raises(DeniedError, match=rf"refused \(400 {code}\); .*credentials"):
        s3_store.put_if_absent(uri, b"")
    assert len(proxy.seen) == 1


def test_a_store_without_conditional_writes_is_a_configuration_error(
    s3_store: S3Store, proxy: FaultProxy, uri: str
) -> None:
    """Waiting cannot mend it."""
    proxy.harm("PUT", Answer(501, "NotImplemented"))
    with pytest.raises(ConfigError, match="choose another"):
        s3_store.put_if_absent(uri, b"")


@pytest.mark.parametrize("endpoint", ["no address", "http://under_score:x"])
def test_settings_without_a_client_are_a_configuration_error(endpoint: str) -> None:
    """Nothing can be asked of any store then, so it is not this object's fault."""
    with pytest.raises(ConfigError, match=r"check store\.endpoint_url"):
        S3Store(StoreSettings(endpoint_url=endpoint)).read("s3://bucket/key")


def test_a_bucket_of_another_region_is_out_of_reach_by_itself(s3_store: S3Store, proxy: FaultProxy, uri: str) -> None:
    """A list may name buckets of many regions: one image that cannot be had must not cost its chunk the others."""
    elsewhere = Answer(301, "PermanentRedirect")
    proxy.harm("GET", elsewhere, elsewhere)
    with pytest.raises(DeniedError, match=r"set store\.region"):
        s3_store.read(uri)


@pytest.mark.parametrize("code", ["KeyTooLongError", "InvalidBucketName", "InvalidURI"])
def test_a_name_that_the_store_cannot_hold_is_not_found(
    s3_store: S3Store, proxy: FaultProxy, uri: str, code: str
) -> None:
    """One absurd line in a list is one row, whatever the store's word for it."""
    proxy.harm("GET", Answer(400, code))
    with pytest.raises(NotFoundError, match="cannot exist"):
        s3_store.read(uri)


def test_a_bucket_that_cannot_be_asked_for_is_not_found(s3_store: S3Store) -> None:
    """boto3 refuses such a name before any request."""
    with pytest.raises(NotFoundError, match="cannot exist"):
        s3_store.read("s3://under score/a.jpg")


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
    with pytest.raises(DeniedError, match=r"AWS_ACCESS_KEY_ID.*store\.anonymous=true"):
        S3Store(StoreSettings(endpoint_url=s3_endpoint)).head("s3://bucket/key")
