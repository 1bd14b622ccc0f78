"""What lies in a source and is no image of it: left out and counted, refused, or not even listed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.records import Ignored
from pipeline.storage.shards import ShardKind, find_shards, index_shard
from pipeline.storage.store import Store
from tests.storage.samples import members_of, tar_of
from tests.storage.sources import index, put

JUNK = [
    ".Trash-1000/files/a.jpg",
    ".ipynb_checkpoints/a-checkpoint.jpg",
    "sub/@eaDir/a.jpg",
    "__MACOSX/a.jpg",
    "._a.jpg",
    ".hidden.jpg",
    "$RECYCLE.BIN/a.jpg",
]


@pytest.mark.parametrize("pattern", ["", "/*"], ids=["folder", "glob"])
def test_files_that_nobody_put_there_are_no_images_of_the_source(store: Store, tmp_path: Path, pattern: str) -> None:
    """A trash can, checkpoints of notebooks and thumbnails of a file server became rows beside the photographs."""
    for name in [*JUNK, "..a/b.jpg", "a.b/c.jpg", "d.jpg"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    source = find_shards(f"{tmp_path}{pattern}", store)
    keys = {member.uri for shard in source.shards for member in members_of(index_shard(shard, store))}
    assert keys == {f"{tmp_path}/a.b/c.jpg", f"{tmp_path}/d.jpg"}


def test_hidden_files_of_a_tar_are_no_images(store: Store, tmp_path: Path) -> None:
    """Archives made on a Mac carry a companion of every image."""
    put(tmp_path, a_tar=tar_of(("./a.jpg", b"x"), ("./._a.jpg", b"x"), ("__MACOSX/a.jpg", b"x")))
    members, ignored = index(store, tmp_path / "a.tar", ShardKind.TAR)
    assert [member.key for member in members] == ["./a.jpg"]
    assert ignored == 2


def test_a_folder_that_is_named_is_worked_on_whatever_its_name(store: Store, tmp_path: Path) -> None:
    """Who types a dot means it."""
    put(tmp_path / ".cache", a_jpg=b"x")
    for source in (f"{tmp_path}/.cache", f"{tmp_path}/.c*", f"{tmp_path}/.cache/*.jpg"):
        (shard,) = find_shards(source, store).shards
        assert len(members_of(index_shard(shard, store))) == 1


def test_archives_that_cannot_be_read_are_refused_and_not_left_out(store: Store, tmp_path: Path) -> None:
    """Of `000.tar`, `001.tar.xz` and `002.tbz` the run did the first, and said nothing of the others."""
    put(tmp_path, **{"000_tar": tar_of(("a.jpg", b"x")), "001_tar_xz": b"x", "002_tbz": b"x"})
    with pytest.raises(ConfigError, match=r"2 archives that cannot be read \(001\.tar\.xz, 002\.tbz\); unpack them"):
        find_shards(str(tmp_path), store)
    assert [shard.name for shard in find_shards(f"{tmp_path}/*.tar", store).shards] == ["000"]


@pytest.mark.parametrize("name", ["a.TAR.XZ", "a.tbz", "a.tar.Z", "a.tlz", "a.tar.lz4", "a.tar.bz2", "b/a.7z"])
def test_an_archive_is_known_by_any_usual_suffix_and_a_file_about_one_is_none(
    store: Store, tmp_path: Path, name: str
) -> None:
    """What is not known for an archive is only counted, and its images are not in the output."""
    for file in (name, "c.jpg", "d.tar.md5", "d.tar.idx"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(ConfigError, match=rf"1 archives that cannot be read \({re.escape(name)}\)"):
        find_shards(str(tmp_path), store)


def test_what_lies_beside_tars_is_counted(store: Store, tmp_path: Path) -> None:
    """The folder has no shard of its own then."""
    put(tmp_path, a_tar=tar_of(("a.jpg", b"x")), readme_md=b"x")
    source = find_shards(str(tmp_path), store)
    assert [shard.name for shard in source.shards] == ["a"]
    assert source.ignored == (Ignored(".md", 1, "readme.md"),)


@pytest.fixture
def unreadable(tmp_path: Path) -> Iterator[Path]:
    """A folder with two images and a subfolder that this user may not read. Root may: then it is nobody."""
    put(tmp_path / "volume", a_jpg=b"x", sub__b_jpg=b"x", secret__c_jpg=b"x")
    (tmp_path / "volume" / "secret").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    yield tmp_path / "volume"
    os.seteuid(user)
    (tmp_path / "volume" / "secret").chmod(0o700)


@pytest.mark.parametrize("pattern", ["", "/*"], ids=["folder", "glob"])
def test_a_subfolder_that_may_not_be_read_is_named_and_left_out(store: Store, unreadable: Path, pattern: str) -> None:
    """`lost+found` at the root of a volume refused the whole run."""
    source = find_shards(f"{unreadable}{pattern}", store)
    indexes = [index_shard(shard, store) for shard in source.shards]
    assert {member.uri for found in indexes for member in members_of(found)} == {
        f"{unreadable}/a.jpg",
        f"{unreadable}/sub/b.jpg",
    }
    ignored = [each for found in indexes for each in found.ignored] + list(source.ignored)
    assert ignored == [Ignored("unreadable folder", 1, f"{unreadable}/secret")]


def test_a_glob_lists_only_what_it_can_match(store: Store, unreadable: Path) -> None:
    """Beside `day1` there may be millions of others, or what nobody may read."""
    source = find_shards(f"{unreadable}/su*/*.jpg", store)
    assert source.ignored == ()
    assert [shard.index.ignored for shard in source.shards if shard.index] == [()]
    listed = [info.uri for info in store.list(str(unreadable), pattern=["su*", "*.jpg"])]
    assert listed == [f"{unreadable}/sub/b.jpg"]
