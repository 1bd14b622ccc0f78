"""Tars: where their members lie, and what is said of damaged and hostile ones."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.records import Member
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.shards import ShardKind, ShardSource, index_shard
from pipeline.storage.store import Store
from tests.storage.samples import members_of, tar_of

BLOCK = 512


@pytest.fixture
def store() -> Store:
    return connect(StoreSettings())


def index(store: Store, path: Path) -> tuple[tuple[Member, ...], int]:
    found = index_shard(ShardSource("name", str(path), ShardKind.TAR), store)
    return members_of(found), found.ignored_count


def read_back(store: Store, member: Member) -> bytes:
    return store.read(member.uri, offset=member.offset, length=member.length or None, etag=member.etag)


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_members_are_found_where_they_lie(store: Store, tmp_path: Path, layout: int) -> None:
    """Offsets must be right in every dialect, with long and foreign names."""
    bodies = {f"{'d' * 90}/{'n' * length}é.jpg": bytes([length]) * (length * 37) for length in (1, 50, 80)}
    (tmp_path / "a.tar").write_bytes(tar_of(*bodies.items(), ("a.json", b"{}"), layout=layout))
    members, ignored = index(store, tmp_path / "a.tar")
    assert {member.key: read_back(store, member) for member in members} == bodies
    assert ignored == 1


def test_a_size_in_a_pax_header_overrules_the_old_field(store: Store, tmp_path: Path) -> None:
    """Files over 8 GiB, and some writers always, say the size there."""
    info = tarfile.TarInfo("big.jpg")
    info.pax_headers = {"size": "3000", "comment": "x=y\nz"}
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    header = sink.getvalue()[: 3 * BLOCK]
    after = tar_of(("next.jpg", b"next"))
    (tmp_path / "a.tar").write_bytes(header + b"b" * 3000 + bytes(72) + after)
    members, _ = index(store, tmp_path / "a.tar")
    assert [(m.key, read_back(store, m)) for m in members] == [("big.jpg", b"b" * 3000), ("next.jpg", b"next")]


def test_entries_that_are_no_files_are_ignored_or_recorded(store: Store, tmp_path: Path) -> None:
    """A directory is nothing; a link or an empty file with an image's name was meant to be an image."""
    folder, link = tarfile.TarInfo("folder.jpg"), tarfile.TarInfo("link.jpg")
    folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "../../etc/passwd"
    (tmp_path / "a.tar").write_bytes(tar_of((folder, b""), (link, b""), ("empty.jpg", b""), ("._a.jpg", b"fork")))
    members, ignored = index(store, tmp_path / "a.tar")
    assert [(member.key, member.length) for member in members] == [("link.jpg", 0), ("empty.jpg", 0)]
    assert "it is a symbolic link" in members[0].broken
    assert "empty file" in members[1].broken
    assert ignored == 2


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_size_on_an_entry_without_data_is_not_a_jump_over_its_neighbours(
    store: Store, tmp_path: Path, kind: bytes
) -> None:
    """Old writers give a hard link the size of the file that it names; no bytes of its own follow."""
    entry = tarfile.TarInfo("again.bin")
    entry.type, entry.linkname, entry.size = kind, "1.jpg", 700
    header = entry.tobuf(tarfile.USTAR_FORMAT)
    one, two = (tar_of((name, body * 700), layout=tarfile.USTAR_FORMAT) for name, body in NEIGHBOURS)
    (tmp_path / "a.tar").write_bytes(one[: 3 * BLOCK] + header + two)
    members, _ = index(store, tmp_path / "a.tar")
    assert [(m.key, read_back(store, m)) for m in members] == [(name, body * 700) for name, body in NEIGHBOURS]


NEIGHBOURS = [("1.jpg", b"1"), ("2.jpg", b"2")]


@pytest.mark.parametrize("dialect", ["pax", "gnu"])
def test_a_file_with_holes_is_recorded_and_not_read_as_it_lies(store: Store, tmp_path: Path, dialect: str) -> None:
    """What lies there is a map and some pieces of the image; `tar --sparse` writes it for files with holes."""
    entry = tarfile.TarInfo("holes.jpg")
    if dialect == "pax":
        entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999"}
    else:
        entry.type = tarfile.GNUTYPE_SPARSE
    layout = tarfile.PAX_FORMAT if dialect == "pax" else tarfile.GNU_FORMAT
    (tmp_path / "a.tar").write_bytes(tar_of((entry, b"h" * 600), ("next.jpg", b"next"), layout=layout))
    members, _ = index(store, tmp_path / "a.tar")
    assert [member.key for member in members] == ["holes.jpg", "next.jpg"]
    assert "it is a sparse file" in members[0].broken
    assert read_back(store, members[1]) == b"next"


def test_duplicate_and_hostile_names_in_a_tar_are_kept_as_data(store: Store, tmp_path: Path) -> None:
    """Names go to a column, never to a path; the same name twice is two images."""
    names = [
        "a.jpg",
        "a.jpg",
        "../../up.jpg",
        "/etc/x.jpg",
        "new\nline.jpg",
        "<script>.jpg",
        "é𝒳.jpg",
        "x" * 5000 + ".jpg",
    ]
    (tmp_path / "a.tar").write_bytes(tar_of(*((name, name.encode()) for name in names)))
    members, _ = index(store, tmp_path / "a.tar")
    assert [member.key for member in members] == names
    assert [read_back(store, member) for member in members] == [name.encode() for name in names]
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_name_in_a_tar_that_is_no_utf8_becomes_readable_text(store: Store, tmp_path: Path) -> None:
    """The plan and the output are UTF-8; the image must not be lost to its name."""
    info = tarfile.TarInfo("caf\udce9.jpg")
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    (tmp_path / "a.tar").write_bytes(sink.getvalue())
    ((member,), _) = index(store, tmp_path / "a.tar")
    assert member.key == "caf\\xe9.jpg"


def good_tar() -> bytes:
    return tar_of(("1.jpg", b"1" * 700), ("2.jpg", b"2" * 700), ("3.jpg", b"3" * 700))


def with_bad_third_header(data: bytes) -> bytes:
    return data[: 6 * BLOCK] + b"garbage!" + data[6 * BLOCK + 8 :]


@pytest.mark.parametrize(
    ("damage", "kept", "offset", "said"),
    [
        (with_bad_third_header, 2, 6 * BLOCK, r"expected a tar header, found b'garbage!"),
        (lambda d: d[: 6 * BLOCK + 100], 2, 6 * BLOCK, "expected a header of 512 bytes, found 100"),
        (lambda d: d[: 8 * BLOCK], 2, 6 * BLOCK, r"expected 700 bytes of '3\.jpg', found 512"),
        (lambda d: d[: 6 * BLOCK], 2, 6 * BLOCK, "expected an end-of-archive mark"),
        (lambda d: d[: 7 * BLOCK + 700], 3, 7 * BLOCK + 700, "expected an end-of-archive mark"),
        (lambda d: d + b"tail" * 200, 3, 10240, "expected a tar header"),
        (lambda _: b"", 0, 0, "empty file"),
        (lambda _: b"not a tar at all" * 100, 0, 0, "expected a tar header"),
        (lambda _: b"short", 0, 0, "expected a header of 512 bytes, found 5"),
    ],
    ids=["header", "cut-header", "cut-data", "cut-between", "cut-mark", "tail", "empty", "text", "short"],
)
def test_a_damaged_tar_keeps_what_came_before_and_records_the_rest_as_one(
    store: Store, tmp_path: Path, damage: Callable[[bytes], bytes], kept: int, offset: int, said: str
) -> None:
    """Nothing is lost in silence, and nothing that can be read is thrown away."""
    path = tmp_path / "a.tar"
    path.write_bytes(damage(good_tar()))
    members, _ = index(store, path)
    assert [read_back(store, member) for member in members[:kept]] == [b"%d" % n * 700 for n in range(1, kept + 1)]
    (broken,) = members[kept:]
    assert (broken.key, broken.length) == (f"a.tar@{offset}", 0)
    assert re.search(rf"{re.escape(str(path))} is damaged at byte {offset}: .*{said}", broken.broken)


def test_a_tar_cut_anywhere_ends_in_a_record_and_never_in_an_error(store: Store, tmp_path: Path) -> None:
    """Uploads break at any byte, inside extension headers too."""
    data = tar_of(("é" * 200 + ".jpg", b"1" * 700), ("2.jpg", b"2"))
    path, whole = tmp_path / "a.tar", len(index_of_bytes(data, tmp_path, store))
    for size in range(0, 7 * BLOCK, 37):
        path.write_bytes(data[:size])
        members, _ = index(store, path)
        assert members[-1].broken
        assert len(members) <= whole + 1


def index_of_bytes(data: bytes, folder: Path, store: Store) -> tuple[Member, ...]:
    (folder / "whole.tar").write_bytes(data)
    return index(store, folder / "whole.tar")[0]


def test_tars_put_end_to_end_are_read_as_one(store: Store, tmp_path: Path) -> None:
    """`cat a.tar b.tar` is a common way to join shards; most readers lose the second half."""
    (tmp_path / "a.tar").write_bytes(tar_of(("1.jpg", b"one")) + tar_of(("2.jpg", b"two")))
    members, _ = index(store, tmp_path / "a.tar")
    assert [(member.key, read_back(store, member)) for member in members] == [("1.jpg", b"one"), ("2.jpg", b"two")]


def test_a_compressed_tar_under_a_plain_name_is_refused_with_the_cure(store: Store, tmp_path: Path) -> None:
    """Members of a compressed tar have no place of their own."""
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("1.jpg"))
    with pytest.raises(ConfigError, match=r"compressed \(gzip\).*unpack it"):
        index(store, tmp_path / "a.tar")


def test_times_in_a_gnu_header_are_no_part_of_the_name(store: Store, tmp_path: Path) -> None:
    """GNU tar keeps access and change times where POSIX keeps the beginning of a long name (`tar --format=gnu -g`)."""
    header = bytearray(tar_of(("photos/a.jpg", b"a"), layout=tarfile.GNU_FORMAT)[:BLOCK])
    header[345:369] = b"15301631103\0" + b"15301631104\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"a".ljust(BLOCK, b"\0") + bytes(2 * BLOCK))
    members, _ = index(store, tmp_path / "a.tar")
    assert [(member.key, read_back(store, member)) for member in members] == [("photos/a.jpg", b"a")]


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.LNKTYPE, target
    return link


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_hard_link_is_the_file_that_it_names(store: Store, tmp_path: Path, layout: int) -> None:
    """The bytes are in the archive: what tar made of two names of one file is two images."""
    target = f"{'d' * 120}/first.jpg" if layout != tarfile.USTAR_FORMAT else "first.jpg"
    data = tar_of(
        (target, b"one"),
        (hard_link("second.jpg", target), b""),
        ("data.bin", b"raw"),
        (hard_link("third.jpg", "second.jpg"), b""),
        (hard_link("fourth.jpg", "data.bin"), b""),
        (target, b"another one"),
        (hard_link("fifth.jpg", target), b""),
        layout=layout,
    )
    (tmp_path / "a.tar").write_bytes(data)
    members, ignored = index(store, tmp_path / "a.tar")
    contents = {member.key: read_back(store, member) for member in members if member.key != target}
    assert contents == {"second.jpg": b"one", "third.jpg": b"one", "fourth.jpg": b"raw", "fifth.jpg": b"another one"}
    assert ignored == 1


def test_a_hard_link_to_nothing_is_one_broken_member(store: Store, tmp_path: Path) -> None:
    """A name out of the archive is not followed, nor is one that comes later."""
    links = [(hard_link("a.jpg", "../../etc/passwd"), b""), (hard_link("b.jpg", "late.jpg"), b"")]
    (tmp_path / "a.tar").write_bytes(tar_of(*links, ("late.jpg", b"x")))
    members, _ = index(store, tmp_path / "a.tar")
    assert [(member.key, bool(member.broken)) for member in members] == [
        ("a.jpg", True),
        ("b.jpg", True),
        ("late.jpg", False),
    ]
    assert "to '../../etc/passwd', of which nothing comes before it" in members[0].broken
