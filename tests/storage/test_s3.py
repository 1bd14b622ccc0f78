"""What is special about the S3 store, against a real server process. Harm done to it is test_s3_faults.py's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from pipeline.settings import StoreSettings
from pipeline.storage import s3
from pipeline.storage.s3 import S3Store
from pipeline.storage.uris import join, parent, split_s3
from tests.fault_proxy import FaultProxy


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


def test_the_markers_of_folders_are_not_listed(s3_store: S3Store, s3_client: Any, s3_bucket: str) -> None:
    """Consoles make an empty object for a folder; it is no image."""
    for name in ("images/folder/", "images/a.jpg"):
        s3_client.put_object(Bucket=s3_bucket, Key=name, Body=b"")
    assert [info.uri for info in s3_store.list(f"s3://{s3_bucket}/images")] == [f"s3://{s3_bucket}/images/a.jpg"]


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


def test_a_second_client_reads_no_description_of_services_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are megabytes of JSON, and a command has a store for its source and one for its output."""
    settings = StoreSettings(endpoint_url="http://127.0.0.1:9", region="here")
    s3._new_client(settings)
    read: list[str] = []
    monkeypatch.setattr("botocore.loaders.JSONFileLoader.load_file", lambda _self, path: read.append(path))
    folders = list(s3._model_loader(None).search_paths)
    s3._new_client(settings)
    assert read == []
    assert s3._model_loader(None).search_paths == folders, "a list that grows with every client"
