"""Members that lie close to one another in an object of a store: one request for several, and nothing else changes."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ChangedError, SourceError
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.member_bytes import ByteRange
from pipeline.storage.read_ahead import LONGEST, SMALL_GAP, Extent, ReadAhead
from pipeline.work.chunk import WorkerContext
from tests.fakes_run import drawn_image
from tests.fault_proxy import Answer, FaultProxy, Torn
from tests.small_runs import context_of, rows_of, small_run, with_run, work
from tests.storage.conftest import overwrite
from tests.storage.samples import tar_of

IMAGES = {f"sa_{number}.png": drawn_image(number) for number in range(12)}
HASHES = [hashlib.sha256(data).hexdigest() for data in IMAGES.values()]


def as_tar() -> bytes:
    """Each image with its annotation behind it, as in SA-1B."""
    files: list[tuple[str, bytes]] = []
    for name, data in IMAGES.items():
        files += [(name, data), (name.replace("png", "json"), b"{}")]
    return tar_of(*files)


def as_zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data in IMAGES.items():
            archive.writestr(name, data)
    return sink.getvalue()


def as_parquet() -> bytes:
    sink: Any = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": list(IMAGES.values()), "n": list(range(12))}), sink, row_group_size=6)
    return sink.getvalue().to_pybytes()


MAKE = {"a.tar": as_tar, "a.zip": as_zip, "a.parquet": as_parquet}
Planned = Callable[[str], WorkerContext]


@pytest.fixture
def planned(proxy: FaultProxy, s3_client: Any, s3_bucket: str, tmp_path: Path) -> Planned:
    """A plan of one chunk over the object of this name, behind the proxy, which forgets what planning has asked."""

    def plan(name: str) -> WorkerContext:
        uri = f"s3://{s3_bucket}/{name}"
        overwrite(uri, s3_client, MAKE[name]())
        settings = with_run(small_run(tmp_path, tmp_path / "out"), images_per_chunk=12)
        store = connect(StoreSettings(endpoint_url=proxy.url, retry_deadline_s=20))
        context = context_of(replace(settings, source=uri), store)
        proxy.forget()
        return context

    return plan


def asked(proxy: FaultProxy) -> list[int]:
    """The bytes of each request for a range."""
    ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", "")) for _, headers in proxy.headers]
    return [int(found[2]) + 1 - int(found[1]) for found in ranges if found]


@pytest.mark.parametrize(("name", "requests"), [("a.tar", 1), ("a.zip", 1), ("a.parquet", 3)])
def test_a_chunk_costs_few_requests_and_hardly_a_byte_more_than_its_shard(
    planned: Planned, proxy: FaultProxy, name: str, requests: int
) -> None:
    """Of a Parquet file its end, and each row group."""
    context = planned(name)
    work(context)
    assert [row.sha256 for row in rows_of(context)] == HASHES
    assert len(proxy.headers) == len(asked(proxy)) == requests
    end_of_parquet = 2**16  # what pyarrow takes at first
    assert sum(asked(proxy)) <= len(MAKE[name]()) * 1.1 + (end_of_parquet if requests > 1 else 0)


@pytest.mark.parametrize(("name", "requests"), [("a.tar", 1), ("a.zip", 1), ("a.parquet", 2)])
def test_an_image_from_the_middle_costs_a_request_or_two(
    planned: Planned, proxy: FaultProxy, name: str, requests: int
) -> None:
    """Its place is in the member index; of a Parquet file its end says where the row group is."""
    context = planned(name)
    (shard,) = context.plan.shards
    (member,) = context.index.read(shard.shard.name, 7, 8)
    data = ByteRange.of(member, kind=shard.shard.kind, column=None).read(context.store)
    assert hashlib.sha256(data).hexdigest() == HASHES[7]
    assert len(proxy.headers) == len(asked(proxy)) == requests


def test_a_line_that_breaks_and_a_busy_store_cost_a_request_each_and_nothing_else(
    planned: Planned, proxy: FaultProxy
) -> None:
    context = planned("a.tar")
    proxy.harm("GET", Answer(503, "SlowDown"), Torn(5000))
    work(context)
    assert [row.sha256 for row in rows_of(context)] == HASHES
    assert len(asked(proxy)) == 3


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_a_shard_that_was_replaced_or_is_gone_makes_nothing_final(
    planned: Planned, s3_client: Any, s3_bucket: str, name: str
) -> None:
    context = planned(name)
    overwrite(f"s3://{s3_bucket}/{name}", s3_client, MAKE[name]()[:5000])
    with pytest.raises(SourceError):
        work(context)
    s3_client.delete_object(Bucket=s3_bucket, Key=name)
    with pytest.raises(SourceError):
        work(context)


URI = "s3://bucket/a.tar"


class Recorder:
    """An object of which each byte says where it lies, to a period of 251."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, str]] = []

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        if etag == "old":
            raise ChangedError(uri)
        self.asked.append((offset, length or 0, etag))
        return content(offset, length or 0)


def content(offset: int, length: int) -> bytes:
    begin = offset % 251
    return (bytes(range(251)) * (length // 251 + 2))[begin : begin + length]


def read_all(extents: list[tuple[int, int]], order: list[tuple[int, int]] | None = None) -> list[int]:
    """The lengths of the requests by which these are read, each with its own bytes."""
    recorder: Any = Recorder()
    ahead = ReadAhead([Extent(URI, *extent) for extent in extents], recorder)
    for start, stop in order or extents:
        assert ahead.read(URI, offset=start, length=stop - start, etag="e") == content(start, stop - start)
    return [length for _, length, _ in recorder.asked]


def test_a_request_is_never_too_long() -> None:
    """So memory is bounded."""
    third = LONGEST // 3
    assert read_all([(n * third, (n + 1) * third) for n in range(7)]) == [3 * third, 3 * third, third]
    assert read_all([(0, 2 * LONGEST), (2 * LONGEST, 2 * LONGEST + 5)]) == [2 * LONGEST, 5]


def test_what_lies_between_members_is_read_along_if_it_is_little() -> None:
    """Small images with much between them would cost many times their bytes."""
    assert read_all([(0, 9), (9 + SMALL_GAP, 20 + SMALL_GAP)]) == [20 + SMALL_GAP]
    assert read_all([(0, 9), (10 + SMALL_GAP, 20 + SMALL_GAP)]) == [9, 10]
    assert read_all([(0, 35_000), (45_000, 80_000), (90_000, 135_000)]) == [80_000, 45_000]
    assert read_all([(0, 35_000), (45_000, 80_000), (90_000, 170_000)]) == [170_000]


def test_a_member_that_lies_before_the_others_is_read_by_itself() -> None:
    """A hard link to a file far back."""
    far = 2**20
    assert read_all([(far, far + 90), (0, 500), (far + 90, far + 99)]) == [90, 500, 9]


def test_what_nobody_announced_and_what_is_left_out_is_read_as_well() -> None:
    extents = [(0, 100), (100, 200), (200, 300)]
    assert read_all(extents, [(100, 200), (200, 300), (700, 720)]) == [200, 20]


def test_another_version_is_never_served_from_the_bytes_of_the_first() -> None:
    recorder: Any = Recorder()
    ahead = ReadAhead([Extent(URI, 0, 10), Extent(URI, 10, 20)], recorder)
    ahead.read(URI, offset=0, length=10, etag="new")
    with pytest.raises(ChangedError):
        ahead.read(URI, offset=10, length=10, etag="old")
    assert ahead.read(URI, offset=10, length=10, etag="new") == content(10, 10)
    assert len(recorder.asked) == 1
