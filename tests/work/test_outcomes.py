"""The table of outcomes: what is final when a member cannot be read, and what stops its chunk instead."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pipeline.errors import DeniedError, OutOfReachError, SourceError
from pipeline.masks.points import EVERYTHING, Prompts
from pipeline.plan.layout import part_uri
from pipeline.records import Attempt, Chunk, ImageMasks, Status
from pipeline.settings import Format, Settings, StoreSettings
from pipeline.storage.connect import RoutedStore, connect
from pipeline.storage.store import ObjectInfo, Store
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.device import Image_HW3
from pipeline.work.earlier_part import earlier_part
from pipeline.work.stopwatch import Stopwatch
from tests.fakes_run import drawn_image, write_folder, write_tar
from tests.fault_proxy import Answer, fault_proxy
from tests.small_runs import context_of, generate, part_of, parts_of, rows_of, small_run, work

CONDITIONS = ("ok", "unreadable", "gone", "changed", "refused")
ROWS = {
    "folder": {"ok": "ok", "unreadable": "unreadable", "gone": "missing", "changed": "changed"},
    # A list says where images are, and nothing of what they were when it was made.
    "list": {"ok": "ok", "unreadable": "unreadable", "gone": "missing", "changed": "ok"},
}


class RefusingStore(RoutedStore):
    """A store that refuses whoever asks for some URIs."""

    def __init__(self, refused: set[str]) -> None:
        super().__init__(StoreSettings())
        self.refused = refused

    def head(self, uri: str) -> ObjectInfo:
        self._check(uri)
        return super().head(uri)

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        self._check(uri)
        return super().read(uri, offset=offset, length=length, etag=etag, limit=limit)

    def _check(self, uri: str) -> None:
        if uri in self.refused:
            raise DeniedError(f"{uri}: refused")


def expected(conditions: list[str], chunk: Chunk, row: dict[str, str]) -> type[Exception] | list[str]:
    """The table, written down once more: what a chunk of such members ends with."""
    own = conditions[chunk.start : chunk.stop]
    if "refused" in own:
        return DeniedError
    if not any(row.get(condition) in ("ok", "unreadable") for condition in conditions):
        return SourceError
    return [row[condition] for condition in own]


def outcome(context: WorkerContext, chunk: Chunk, number: int) -> type[Exception] | list[str]:
    try:
        process_chunk(Attempt(chunk), context)
    except (DeniedError, SourceError) as error:
        assert not os.path.exists(part_uri(context.out, context.plan, chunk)), "something is final"
        return type(error)
    return [str(row.status) for row in part_of(context, number).rows]


@pytest.mark.parametrize("kind", list(ROWS))
@given(conditions=st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=8))
@examples(max_examples=25, deadline=None)
def test_what_is_final_is_what_the_table_says(
    tmp_path_factory: pytest.TempPathFactory, conditions: list[str], kind: str
):
    """A row that should not be final is an image lost for good while the run says that it is done."""
    place = tmp_path_factory.mktemp("mix")
    images = {f"{number}.png": drawn_image(number) for number in range(len(conditions))}
    images |= {f"{number}.png": b"none" for number, condition in enumerate(conditions) if condition == "unreadable"}
    folder = write_folder(place / "in", images)
    (place / "list.txt").write_text("".join(f"{folder}/{name}\n" for name in images))
    refusing = RefusingStore(set())
    source = folder if kind == "folder" else place / "list.txt"
    context = context_of(small_run(source, place / "out"), refusing)
    for number, condition in enumerate(conditions):
        path = folder / f"{number}.png"
        if condition == "gone":
            path.unlink()
        elif condition == "changed":
            os.utime(path, (1, 1))
        elif condition == "refused":
            refusing.refused.add(str(path))
    for number, chunk in enumerate(context.plan.chunks()):
        assert outcome(context, chunk, number) == expected(conditions, chunk, ROWS[kind])
    shutil.rmtree(place)


def test_a_list_of_what_is_not_mounted_yet_waits_and_is_done_afterwards(
    settings: Settings, store: Store, tmp_path: Path
):
    """Six of six photographs were `missing` for good, and the repeated command said that there was nothing to do."""
    photos = write_folder(tmp_path / "volume" / "photos", {f"{n}.png": drawn_image(n) for n in range(6)})
    (tmp_path / "list.txt").write_text("".join(f"{photos}/{n}.png\n" for n in range(6)))
    shutil.move(photos, tmp_path / "elsewhere")
    settings = replace(settings, source=str(tmp_path / "list.txt"))
    context = context_of(settings, store)
    with pytest.raises(SourceError, match=r"folder above .*/photos/0\.png is empty .*is a volume not mounted"):
        work(context)
    assert not (Path(settings.out) / "data").exists()
    shutil.move(tmp_path / "elsewhere", photos)
    work(context)
    assert [row.status for row in rows_of(context)] == ["ok"] * 6
    undisturbed = context_of(replace(settings, out=str(tmp_path / "undisturbed")), store)
    work(undisturbed)
    assert parts_of(settings.out) == parts_of(undisturbed.out)


def test_a_volume_that_goes_in_the_middle_of_a_list_makes_no_rows(settings: Settings, store: Store, tmp_path: Path):
    """The others of the chunk were read, and yet the empty mount point says whose fault it is."""
    here = write_folder(tmp_path / "here", {"a.png": drawn_image(1), "b.png": drawn_image(2)})
    (tmp_path / "volume").mkdir()
    (tmp_path / "list.txt").write_text(f"{here}/a.png\n{tmp_path}/volume/photos/c.png\n{here}/b.png\n")
    context = context_of(replace(settings, source=str(tmp_path / "list.txt")), store)
    with pytest.raises(SourceError, match="is a volume not mounted"):
        work(context)


@pytest.fixture
def tar_run(settings: Settings, store: Store, tmp_path: Path) -> tuple[Path, WorkerContext]:
    tar = write_tar(tmp_path / "all.tar", {f"{name}.png": drawn_image(ord(name)) for name in "abcd"})
    return tar, context_of(replace(settings, source=str(tar)), store)


def test_a_tar_that_was_only_touched_is_read(tar_run: tuple[Path, WorkerContext]):
    """A copy of a disk has other times and the same tars; it cost every image of them."""
    tar, context = tar_run
    os.utime(tar, (1, 1))
    work(context)
    assert [row.status for row in rows_of(context)] == ["ok"] * 4


@pytest.mark.parametrize("names", ["abc", "abce", "dcba"])
def test_another_tar_in_its_place_stops_the_shard(tar_run: tuple[Path, WorkerContext], names: str):
    """Once, with what to do, and not image by image."""
    tar, context = tar_run
    write_tar(tar, {f"{name}.png": drawn_image(ord(name)) for name in names})
    with pytest.raises(SourceError, match="put the planned one back") as stopped:
        work(context)
    assert stopped.value.shard == "all"


def test_another_tar_in_a_bucket_is_told_by_its_hash(
    settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str, tmp_path: Path
):
    """The ETag of one upload is the MD5 of the content: members of the same names and lengths are no proof then."""
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    data = write_tar(tmp_path / "a.tar", {"a.png": drawn_image(1), "b.png": drawn_image(2)}).read_bytes()
    s3_client.put_object(Bucket=s3_bucket, Key="a.tar", Body=data)
    context = context_of(replace(settings, source=f"s3://{s3_bucket}/a.tar"), store)
    s3_client.put_object(Bucket=s3_bucket, Key="a.tar", Body=data.replace(drawn_image(1)[60:70], bytes(10)))
    with pytest.raises(SourceError, match="another tar"):
        work(context)


@pytest.fixture
def s3_context(settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str) -> Iterator[tuple[Any, Any]]:
    """A run over three images in a bucket, and the proxy before it."""
    for number in range(3):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{number}.png", Body=drawn_image(number))
    with fault_proxy(s3_endpoint) as proxy:
        store = connect(StoreSettings(endpoint_url=proxy.url))
        context = context_of(replace(settings, source=f"s3://{s3_bucket}/in"), store)
        context.index.read("in", 0, 1)  # its one request comes before the harm
        yield proxy, context


@pytest.mark.parametrize(
    ("answer", "cure"),
    [
        (Answer(400, "ExpiredToken"), "have expired; renew them and repeat"),
        (Answer(401, "Unauthorized"), "check the credentials"),
        (Answer(403, "AccessDenied"), "check the credentials"),
        (Answer(400, "KMS.DisabledException"), "make the key usable"),
        (Answer(403, "InvalidObjectState"), "is archived; restore it"),
        (Answer(403, "RequestTimeTooSkewed"), "set this machine's clock"),
    ],
    ids=lambda value: value.code if isinstance(value, Answer) else "",
)
def test_who_we_are_is_no_images_fault(s3_context: tuple[Any, WorkerContext], answer: Answer, cure: str):
    """The token ran out in the middle: seven of twelve images became `missing`."""
    proxy, context = s3_context
    proxy.harm("GET", answer)
    with pytest.raises(DeniedError, match=cure):
        work(context)
    assert not (Path(context.out) / "data").exists()
    work(context)
    assert [row.status for row in rows_of(context)] == ["ok"] * 3


def test_a_bucket_that_is_gone_stops_the_shard(s3_context: tuple[Any, WorkerContext]):
    """It may come back, and its images with it."""
    proxy, context = s3_context
    proxy.harm("GET", Answer(404, "NoSuchBucket"))
    with pytest.raises(SourceError, match="there is no bucket") as stopped:
        work(context)
    assert stopped.value.shard == "in"
    assert isinstance(stopped.value.__cause__, OutOfReachError)


def test_a_bucket_that_is_gone_stops_of_a_list_the_chunk_alone(
    settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str
):
    """The list's other lines name other places: a wrong name among millions must not stop them all."""
    s3_client.put_object(Bucket=s3_bucket, Key="a.png", Body=drawn_image(1))
    places = [f"s3://{s3_bucket}/a.png"] * 4 + ["s3://never-was/b.png"]
    s3_client.put_object(Bucket=s3_bucket, Key="list.txt", Body="\n".join(places).encode())
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    context = context_of(replace(settings, source=f"s3://{s3_bucket}/list.txt"), store)
    first, second = context.plan.chunks()
    assert process_chunk(Attempt(first), context).images == {"ok": 3}
    with pytest.raises(SourceError, match="there is no bucket 'never-was'") as stopped:
        process_chunk(Attempt(second), context)
    assert stopped.value.shard == ""


@pytest.mark.parametrize("format", list(Format))
def test_failed_rows_are_tried_again_and_the_part_is_that_of_an_undisturbed_run(
    settings: Settings, store: Store, tmp_path: Path, format: Format
):
    """The other images' masks are not made again, nor is another part touched."""
    folder = write_folder(tmp_path / "in", {f"{n}.png": drawn_image(n) for n in range(6)})
    settings = replace(settings, source=str(folder), format=format)
    undisturbed = context_of(replace(settings, out=str(tmp_path / "whole")), store)
    work(undisturbed)
    context = context_of(settings, store)
    (folder / "1.png").rename(tmp_path / "1.png")
    work(context)
    assert [row.status for row in rows_of(context)].count(Status.MISSING) == 1
    (tmp_path / "1.png").rename(folder / "1.png")
    seen: list[Image_HW3] = []

    def noting(image_HW3: Image_HW3, watch: Stopwatch, _prompts: Prompts = EVERYTHING, /) -> ImageMasks:
        seen.append(image_HW3)
        return generate(image_HW3, watch)

    times = {path.name: path.stat().st_mtime_ns for path in Path(settings.out, "data").iterdir()}
    for chunk in context.plan.chunks():
        report = process_chunk(Attempt(chunk, again=True), replace(context, generate=noting))
        assert report.won
        assert report.images == {"ok": 3}
    assert len(seen) == 1
    assert parts_of(settings.out) == parts_of(undisturbed.out)
    now = {path.name: path.stat().st_mtime_ns for path in Path(settings.out, "data").iterdir()}
    assert [name for name in now if now[name] != times[name]] == [min(now)]


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_a_part_that_somebody_else_mended_meanwhile_is_left(
    settings: Settings, store: Store, tmp_path: Path, request: pytest.FixtureRequest, place: str
):
    """Two retries at once: the second must not put its own view of the source over the first one's."""
    folder = write_folder(tmp_path / "in", {f"{n}.png": drawn_image(n) for n in range(3)})
    if place == "s3":
        store = connect(StoreSettings(endpoint_url=request.getfixturevalue("s3_endpoint")))
        settings = replace(settings, out=f"s3://{request.getfixturevalue('s3_bucket')}/out")
    context = context_of(replace(settings, source=str(folder)), store)
    (folder / "1.png").rename(tmp_path / "1.png")
    work(context)
    chunk = next(context.plan.chunks())
    slow = earlier_part(context.plan, chunk, out=context.out, store=store)
    (tmp_path / "1.png").rename(folder / "1.png")
    assert process_chunk(Attempt(chunk, again=True), context).won
    assert not slow.replace(b"other", store)
    assert [row.status for row in rows_of(context)] == ["ok"] * 3
