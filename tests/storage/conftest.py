"""What the tests of the S3 store share: a store at the far end of a proxy that does harm on cue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.settings import StoreSettings
from pipeline.storage.s3 import S3Store
from tests.fault_proxy import FaultProxy, fault_proxy

BODY = bytes(range(256)) * 4096  # 1 MiB, no two places alike within a period


@pytest.fixture(scope="module")
def running_proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with fault_proxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(running_proxy: FaultProxy) -> FaultProxy:
    """Without the script and the log of the test before."""
    running_proxy.forget()
    return running_proxy


@pytest.fixture(scope="module")
def s3_store(running_proxy: FaultProxy) -> S3Store:
    return S3Store(StoreSettings(endpoint_url=running_proxy.url, retry_deadline_s=20))


@pytest.fixture
def uri(s3_bucket: str) -> str:
    return f"s3://{s3_bucket}/data/part é+%20 &.parquet"


def overwrite(uri: str, client: Any, body: bytes) -> None:
    """Behind the store's back."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client.put_object(Bucket=bucket, Key=key, Body=body)
