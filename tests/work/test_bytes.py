"""Files of many bytes: rows that say so, judged before a byte is read."""

from __future__ import annotations

import os
import resource
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TooManyBytesError
from pipeline.records import Attempt, Status
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from pipeline.work.chunk import process_chunk
from tests.fakes_run import drawn_image, write_folder
from tests.fault_proxy import fault_proxy
from tests.small_runs import context_of, rows_of, with_run, work

HUGE = 5 * 2**30
ROOM = 2**30


def sparse(path: Path, size: int = HUGE) -> Path:
    """A file that takes no room on the disk."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


@contextmanager
def little_memory() -> Iterator[None]:
    """Whoever asks for ROOM more address space than there is in use gets a MemoryError."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("how", ["ahead", "careful"])
@pytest.mark.parametrize("source", ["folder", "list", "tar"])
def test_a_file_larger_than_the_memory_is_a_row_and_costs_its_neighbours_nothing(
    settings: Settings, store: Store, tmp_path: Path, source: str, how: str
):
    """It was read whole: MemoryError five times, eight workers lost, an innocent image accused, three not done."""
    folder = write_folder(tmp_path / "in", {f"{name}.png": drawn_image(ord(name)) for name in "abd"})
    sparse(folder / "c.tif")
    place = folder
    if source == "list":
        place = folder / "list.txt"
        place.write_text("a.png\nb.png\nc.tif\nd.png\n")
    elif source == "tar":
        place = sparse_tar(tmp_path / "all.tar", folder)
    context = context_of(with_run(replace(settings, source=str(place)), images_per_chunk=4), store)
    with little_memory():
        process_chunk(Attempt(next(context.plan.chunks()), careful=how == "careful"), context)
    rows = rows_of(context)
    assert [row.status for row in rows] == [Status.OK, Status.OK, Status.TOO_LARGE, Status.OK]
    assert (rows[2].error, rows[2].sha256) == ("5,368,709,120 bytes; run.max_bytes is 4,294,967,296", "")


def sparse_tar(path: Path, folder: Path) -> Path:
    """The files of a folder one after the other; nothing is written for the one that is sparse."""
    with open(path, "wb") as file:
        for image in sorted(folder.iterdir()):
            info = tarfile.TarInfo(image.name)
            info.size = image.stat().st_size
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            if info.size == HUGE:
                file.seek(HUGE, os.SEEK_CUR)
            else:
                file.write(image.read_bytes().ljust(-(-info.size // 512) * 512, b"\0"))
        file.write(bytes(1024))
    return path


def test_what_is_as_large_as_allowed_is_read(settings: Settings, store: Store, tmp_path: Path):
    """The limit itself is within it; with one byte less it is not."""
    image = drawn_image(1)
    folder = write_folder(tmp_path / "in", {"a.png": image})
    (tmp_path / "list.txt").write_text("in/a.png\n")
    for source in (folder, tmp_path / "list.txt"):
        for spare, status in ((0, Status.OK), (-1, Status.TOO_LARGE)):
            out = f"{settings.out}-{source.name}{spare}"
            limited = with_run(replace(settings, source=str(source), out=out), max_bytes=len(image) + spare)
            context = context_of(limited, store)
            work(context)
            assert [row.status for row in rows_of(context)] == [status]


def test_an_object_is_judged_by_the_length_that_the_store_says(
    settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str
):
    """A list has no sizes. The answer to the one request has, before its body."""
    for key, data in {"a.png": drawn_image(1), "b.png": bytes(10**7), "list.txt": b"a.png\nb.png\n"}.items():
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=data)
    settings = with_run(replace(settings, source=f"s3://{s3_bucket}/list.txt"), max_bytes=10**6)
    with fault_proxy(s3_endpoint) as proxy:
        context = context_of(settings, connect(StoreSettings(endpoint_url=proxy.url)))
        before = len(proxy.seen)
        work(context)
        assert len(proxy.seen) - before == 2
    rows = rows_of(context)
    assert [row.status for row in rows] == [Status.OK, Status.TOO_LARGE]
    assert rows[1].error == "10,000,000 bytes; run.max_bytes is 1,000,000"


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_a_store_reads_no_more_than_it_is_told_to(
    place: str, tmp_path: Path, request: pytest.FixtureRequest, store: Store
):
    """A range counts by its own length, and nothing is the same as no limit."""
    (tmp_path / "a").write_bytes(b"0123456789")
    uri = str(tmp_path / "a")
    if place == "s3":
        bucket = request.getfixturevalue("s3_bucket")
        uri = f"s3://{bucket}/a"
        store = connect(StoreSettings(endpoint_url=request.getfixturevalue("s3_endpoint")))
        store.put_if_absent(uri, b"0123456789")
    assert store.read(uri, limit=10) == store.read(uri) == b"0123456789"
    assert store.read(uri, offset=4, limit=6) == b"456789"
    assert store.read(uri, offset=4, length=3, limit=3) == b"456"
    with pytest.raises(TooManyBytesError, match="/a has 10 bytes"):
        store.read(uri, limit=6)
    with pytest.raises(TooManyBytesError, match="/a has 7 bytes"):
        store.read(uri, offset=3, limit=6)
    with pytest.raises(TooManyBytesError, match="/a has 7 bytes"):
        store.read(uri, length=7, limit=6)
