"""Input that is damaged, gone or changed: rows with a word for it, or a run that stops if all of it is."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import ConfigError, StorageError
from pipeline.masks.points import EVERYTHING, Prompts
from pipeline.plan.layout import members_uri
from pipeline.records import Attempt, ImageMasks
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from pipeline.work.chunk import process_chunk
from pipeline.work.device import Image_HW3
from pipeline.work.stopwatch import Stopwatch
from tests.fakes_run import as_png, drawn_image, write_folder, write_tar
from tests.fault_proxy import Flip, fault_proxy
from tests.small_runs import context_of, generate, rows_of, with_run, work


def from_folder(settings: Settings, folder: Path, images: dict[str, bytes]) -> Settings:
    return replace(settings, source=str(write_folder(folder, images)))


def test_bad_images_are_rows_and_their_neighbours_are_untouched(settings: Settings, store: Store, tmp_path: Path):
    """Nothing is lost and nothing else changes: design section 8."""
    good = drawn_image(1)
    settings = from_folder(
        with_run(settings, max_pixels=100 * 100),
        tmp_path / "mixed",
        {
            "a-good.png": good,
            "b-empty.jpg": b"",
            "c-garbage.jpg": b"not an image",
            "d-cut.png": good[: len(good) // 2],
            "e-large.png": as_png(Image.new("RGB", (200, 100))),
            "f-good.png": good,
        },
    )
    context = context_of(settings, store)
    work(context)
    rows = rows_of(context)
    assert [str(row.status) for row in rows] == ["ok", "unreadable", "unreadable", "unreadable", "too_large", "ok"]
    assert all(row.error and not row.masks for row in rows[1:5])
    assert rows[0].masks == rows[5].masks
    assert (rows[4].width, rows[4].height) == (200, 100)
    assert rows[2].sha256 == hashlib.sha256(b"not an image").hexdigest()


def test_a_jpeg_without_its_end_is_an_image_and_says_so(settings: Settings, store: Store, tmp_path: Path):
    """Downloads break off at the last bytes; every row of the picture is there."""
    sink = io.BytesIO()
    Image.open(io.BytesIO(drawn_image(2))).save(sink, "JPEG")
    whole = sink.getvalue()
    context = context_of(from_folder(settings, tmp_path / "in", {"a.jpg": whole, "b.jpg": whole[:-2]}), store)
    work(context)
    first, second = rows_of(context)
    assert first.masks == second.masks
    assert (first.error, second.error) == ("", "the JPEG lacks its end marker; every row is there")


def test_images_that_went_or_changed_after_planning_are_rows(settings: Settings, store: Store, tmp_path: Path):
    """Hours lie between plan and read in a large run."""
    folder = tmp_path / "images"
    settings = from_folder(settings, folder, {f"{name}.png": drawn_image(ord(name)) for name in "abc"})
    context = context_of(settings, store)
    (folder / "a.png").unlink()
    (folder / "b.png").write_bytes(drawn_image(77) + b"longer")
    work(context)
    rows = rows_of(context)
    assert [str(row.status) for row in rows] == ["missing", "changed", "ok"]
    assert "a.png" in rows[0].error


def replaced_on_disk(image: bytes, path: Path) -> None:
    path.write_bytes(image)
    os.utime(path, ns=(1, 1))


def of_one_size(*images: bytes) -> list[bytes]:
    """The same images; PNG readers stop at its end mark."""
    return [image.ljust(max(map(len, images)), b"\0") for image in images]


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_an_image_replaced_by_one_of_the_same_size_is_a_row(
    settings: Settings, store: Store, tmp_path: Path, request: pytest.FixtureRequest, place: str
):
    """Its time, or its ETag, is all that tells; masks of another image under this name would be believed."""
    before, after = of_one_size(drawn_image(1), drawn_image(2))
    if place == "s3":
        client, bucket = request.getfixturevalue("s3_client"), request.getfixturevalue("s3_bucket")
        store = connect(StoreSettings(endpoint_url=request.getfixturevalue("s3_endpoint")))
        for name in ("a", "b"):
            client.put_object(Bucket=bucket, Key=f"in/{name}.png", Body=before)
        context = context_of(replace(settings, source=f"s3://{bucket}/in"), store)
        client.put_object(Bucket=bucket, Key="in/a.png", Body=after)
    else:
        context = context_of(from_folder(settings, tmp_path / "in", {"a.png": before, "b.png": before}), store)
        replaced_on_disk(after, tmp_path / "in" / "a.png")
    work(context)
    rows = rows_of(context)
    assert [str(row.status) for row in rows] == ["changed", "ok"]
    assert rows[0].masks == ()


def test_a_source_that_is_gone_altogether_stops_the_chunk(settings: Settings, store: Store, tmp_path: Path):
    """An unmounted disk must not become a committed dataset of `missing` rows."""
    folder = tmp_path / "images"
    settings = from_folder(settings, folder, {f"{name}.png": drawn_image(ord(name)) for name in "abc"})
    context = context_of(settings, store)
    shutil.rmtree(folder)
    with pytest.raises(StorageError, match="shows nothing any more"):
        work(context)
    assert not (Path(settings.out) / "data").exists()


@pytest.mark.parametrize("pattern", ["", "*.png"], ids=["folder", "glob"])
def test_an_emptied_source_stops_every_chunk(settings: Settings, store: Store, tmp_path: Path, pattern: str):
    """Also one whose first members had been read: rows for the rest would be final."""
    folder = write_folder(tmp_path / "images", {f"{name}.png": drawn_image(ord(name)) for name in "abc"})
    context = context_of(replace(settings, source=f"{folder}/{pattern}"), store)

    def unmounting(image_HW3: Image_HW3, watch: Stopwatch, _prompts: Prompts = EVERYTHING, /) -> ImageMasks:
        for image in folder.glob("*.png"):
            image.unlink()
        return generate(image_HW3, watch)

    # At the first image the other one may have been read already; this one is missed for certain.
    (folder / "c.png").unlink()
    with pytest.raises(StorageError, match="shows nothing any more"):
        process_chunk(Attempt(next(context.plan.chunks())), replace(context, generate=unmounting))
    assert not (Path(settings.out) / "data").exists()


def test_a_deleted_subfolder_is_rows(settings: Settings, store: Store, tmp_path: Path):
    """The shard's root decides: a whole chunk from one folder that somebody removed must not stop a run for ever."""
    names = ["a/1.png", "a/2.png", "a/3.png", "b/1.png"]
    folder = write_folder(tmp_path / "images", {name: drawn_image(number) for number, name in enumerate(names)})
    context = context_of(replace(settings, source=str(folder)), store)
    shutil.rmtree(folder / "a")
    work(context)
    assert [str(row.status) for row in rows_of(context)] == ["missing", "missing", "missing", "ok"]


def test_dead_entries_of_a_list_are_rows(settings: Settings, store: Store, tmp_path: Path):
    """As long as something else that the list names is there."""
    listing = tmp_path / "list.txt"
    write_folder(tmp_path, {"good.png": drawn_image(1)})
    listing.write_text("/nowhere/a.png\nhttp://nowhere/b.png\n/elsewhere/c.png\ngood.png\n")
    context = context_of(replace(settings, source=str(listing)), store)
    work(context)
    rows = rows_of(context)
    assert [str(row.status) for row in rows] == ["missing", "unreadable", "missing", "ok"]
    assert "there is no store for http://" in rows[1].error


@pytest.mark.parametrize("hurt", ["a.png", "b.jpg"])
def test_a_bit_that_flips_on_the_way_crashes_nothing_and_leaves_its_neighbours_alone(
    settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str, tmp_path: Path, hurt: str
):
    """No store guards a range of an object; the row's hash, of the bytes that came, tells afterwards. All three images
    come by one request."""
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(drawn_image(2))).save(jpeg, "JPEG")
    images = {"a.png": drawn_image(1), "b.jpg": jpeg.getvalue(), "c.png": drawn_image(3)}
    tar = write_tar(tmp_path / "a.tar", images).read_bytes()
    s3_client.put_object(Bucket=s3_bucket, Key="a.tar", Body=tar)
    with fault_proxy(s3_endpoint) as proxy:
        store = connect(StoreSettings(endpoint_url=proxy.url))
        context = context_of(replace(settings, source=f"s3://{s3_bucket}/a.tar"), store)
        proxy.harm("GET", Flip(tar.index(images[hurt]) - tar.index(images["a.png"]) + len(images[hurt]) // 2))
        work(context)
        assert sum("Flip" in line for line in proxy.seen) == 1
    rows = rows_of(context)
    for row, (name, data) in zip(rows, images.items(), strict=True):
        assert (row.sha256 == hashlib.sha256(data).hexdigest()) == (name != hurt)
        assert row.status == "ok" or (name == hurt and row.status == "unreadable")


def test_a_bit_that_flips_on_the_way_of_the_member_index_costs_nothing(
    settings: Settings, s3_endpoint: str, s3_bucket: str
):
    """Compatible stores guard no body; rows of what is not in the plan would be committed for good."""
    with fault_proxy(s3_endpoint) as proxy:
        store = connect(StoreSettings(endpoint_url=proxy.url))
        context = context_of(replace(settings, out=f"s3://{s3_bucket}/out"), store)
        proxy.harm("GET", Flip(500))
        work(context)
        assert f"GET {Flip(500)}" in proxy.seen
        assert [row.status for row in rows_of(context)] == ["ok"] * 13


def test_a_deleted_tar_stops_its_chunks(settings: Settings, store: Store, tmp_path: Path):
    """A tar is a shard: without it there is nothing to make rows of."""
    tar = write_tar(tmp_path / "all.tar", {f"{name}.png": drawn_image(ord(name)) for name in "abc"})
    context = context_of(replace(settings, source=str(tar)), store)
    tar.unlink()
    with pytest.raises(StorageError, match=r"all\.tar shows nothing any more"):
        work(context)


def test_the_rest_of_a_cut_tar_is_one_unreadable_row(settings: Settings, store: Store, tmp_path: Path):
    """Members before the cut are whole and are done."""
    tar = write_tar(tmp_path / "cut.tar", {f"{name}.png": drawn_image(ord(name)) for name in "abc"})
    data = tar.read_bytes()
    tar.write_bytes(data[: data.index(b"c.png") + 700])
    context = context_of(replace(settings, source=str(tar)), store)
    work(context)
    rows = rows_of(context)
    assert [str(row.status) for row in rows] == ["ok", "ok", "unreadable"]
    assert "cut.tar" in rows[2].error


def test_a_replaced_member_index_is_refused(settings: Settings, store: Store):
    """The index is named in the plan by its hash; another one would make other rows."""
    context = context_of(settings, store)
    uris = [members_uri(context.out, planned.shard.name, planned.members_sha256[0]) for planned in context.plan.shards]
    Path(uris[0]).write_bytes(store.read(uris[1]))
    with pytest.raises(ConfigError, match="not the member index that was planned"):
        process_chunk(Attempt(next(context.plan.chunks())), context)
