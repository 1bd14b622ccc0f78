"""Images in zip files: which entries, their bytes, in how many requests, and what is wrong with damaged ones."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ChangedError, ConfigError, InputError, TooManyBytesError
from pipeline.records import Member
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.member_bytes import ByteRange
from pipeline.storage.shards import ShardKind, find_shards, index_shard
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder
from tests.output.test_verify import run_without_a_cluster
from tests.small_runs import rows_at, small_run
from tests.storage.samples import members_of

IMAGES = {f"photos/im{number}.png": bytes([number]) * (5000 + number) for number in range(4)}
METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


class Unseekable(io.RawIOBase):
    """As `zip -` writes to a pipe: sizes and checksums follow the data."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.data += data
        return len(data)


class RequestsNoted(RoutedStore):
    def __init__(self) -> None:
        super().__init__(StoreSettings())
        self.reads = 0

    def read(self, uri: str, **which: Any) -> bytes:
        self.reads += 1
        return super().read(uri, **which)


def write(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED, extra: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.extra = method, extra
            archive.writestr(entry, data)
    return path


def members(path: Path, store: Store) -> tuple[Member, ...]:
    [shard] = find_shards(str(path), store).shards
    assert shard.kind is ShardKind.ZIP
    return members_of(index_shard(shard, store))


def read(member: Member, store: Store, **how: Any) -> bytes:
    return ByteRange.of(member, kind=ShardKind.ZIP, column=None).read(store, **how)


@pytest.mark.parametrize(
    "extra", [b"", struct.pack("<2H", 0x5455, 5) + b"\x03abcd", struct.pack("<2H", 9, 300) + b"x" * 300]
)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_image_has_its_bytes(store: Store, tmp_path: Path, method: int, extra: bytes) -> None:
    """The last entry too, behind which there is little; and one whose header is longer than usual."""
    path = write(tmp_path / "a.zip", IMAGES, method, extra)
    found = members(path, store)
    assert {member.key: read(member, store) for member in found} == IMAGES


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_zip_that_was_written_to_a_pipe_is_read(store: Store, tmp_path: Path, method: int) -> None:
    pipe = Unseekable()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for name, data in IMAGES.items():
            archive.writestr(name, data)
    (tmp_path / "a.zip").write_bytes(pipe.data)
    assert {member.key: read(member, store) for member in members(tmp_path / "a.zip", store)} == IMAGES


def test_an_image_costs_one_request(tmp_path: Path) -> None:
    found, store = members(write(tmp_path / "a.zip", IMAGES), RoutedStore(StoreSettings())), RequestsNoted()
    read(found[2], store)
    assert store.reads == 1


def test_what_is_no_image_is_left_out_and_counted(store: Store, tmp_path: Path) -> None:
    others = {"notes.txt": b"x", "__MACOSX/._im0.png": b"x", ".hidden.png": b"x", "photos/": b""}
    path = write(tmp_path / "a.zip", IMAGES | others)
    [shard] = find_shards(str(path), store).shards
    index = index_shard(shard, store)
    assert [member.key for member in members_of(index)] == list(IMAGES)
    assert {each.kind: each.count for each in index.ignored} == {".txt": 1, "hidden": 2, "folder": 1}


def test_what_cannot_be_read_is_a_broken_member_with_the_reason(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"a.png": b"x", "b.png": b"x" * 50, "c.png": b""})
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1  # a.png is encrypted
    second = data.index(b"PK\x01\x02", directory + 4)
    data[second + 10 : second + 12] = struct.pack("<H", 14)  # b.png by LZMA
    path.write_bytes(data)
    assert [member.broken for member in members(path, store)] == [
        "it is encrypted; unpack the zip first",
        "it is compressed by method 14; only stored and deflated entries are read",
        "it is an empty file in a zip",
    ]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_damage_costs_its_own_image_alone(store: Store, tmp_path: Path, method: int) -> None:
    """A bit of the data, and one of the header."""
    path = write(tmp_path / "a.zip", {name: data[:300] + bytes(range(256)) for name, data in IMAGES.items()}, method)
    found, whole = members(path, store), path.read_bytes()
    for at in (60, 0, 26):
        data = bytearray(whole)
        data[found[1].offset + at] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"im1\.png in "):
            read(found[1], store, of_any_version=True)
        for number in (0, 2, 3):
            read(found[number], store, of_any_version=True)


def test_a_few_bytes_that_stand_for_very_many_are_not_made(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"bomb.png": b"\0" * 10**7}, zipfile.ZIP_DEFLATED)
    with pytest.raises(TooManyBytesError, match=r"bomb\.png"):
        read(members(path, store)[0], store, limit=10**6)


def test_another_zip_in_its_place_is_changed(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", IMAGES)
    found = members(path, store)
    write(path, dict(reversed(IMAGES.items())))
    with pytest.raises(ChangedError):
        read(found[0], store)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_zip_is_told(store: Store, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.zip is no zip that can be read"):
        members(tmp_path / "a.zip", store)


def test_a_run_over_a_zip_has_the_rows_of_a_folder(store: Store, tmp_path: Path) -> None:
    """But for where the images were."""
    images = {f"im{number}.png": drawn_image(number) for number in range(4)}

    def rows(source: Path, name: str) -> list[Any]:
        settings: Settings = small_run(source, tmp_path / name)
        run_without_a_cluster(settings, store)
        return [(row.file_name, row.status, row.sha256, row.masks) for row in rows_at(settings.out)]

    of_zip = rows(write(tmp_path / "a.zip", images, zipfile.ZIP_DEFLATED), "of-zip")
    assert of_zip == rows(write_folder(tmp_path / "folder", images), "of-folder")
    assert sum(len(masks) for *_, masks in of_zip) > 0
