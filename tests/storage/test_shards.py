"""What a source names, and what is found inside folders and lists."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.records import Ignored, Member, Shard
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.shards import ShardKind, ShardSource, find_shards, index_shard, shard_is_there
from pipeline.storage.store import Store
from tests.storage.samples import members_of, tar_of


@pytest.fixture
def store() -> Store:
    return connect(StoreSettings())


def put(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def index(store: Store, path: Path, kind: ShardKind, *, mixed_lists: bool = False) -> tuple[tuple[Member, ...], int]:
    (shard,) = (shard for shard in find_shards(str(path), store).shards if shard.kind is kind)
    found = index_shard(shard, store, mixed_lists=mixed_lists)
    return members_of(found), found.ignored_count


def read_back(store: Store, member: Member) -> bytes:
    return store.read(member.uri, offset=member.offset, length=member.length or None, etag=member.etag)


# ---- what the source names


def test_a_folder_is_one_shard_and_each_tar_in_it_is_another(store: Store, tmp_path: Path) -> None:
    """A folder like SA-1B's holds a thousand tars; loose images beside them count as well."""
    put(tmp_path, a_jpg=b"x", deep__sa1_tar=tar_of(), sa0_tar=tar_of(), notes_txt=b"x", deep__b_PNG=b"x")
    assert find_shards(str(tmp_path), store).shards == [
        ShardSource(tmp_path.name, str(tmp_path), ShardKind.FOLDER),
        ShardSource("sa1", f"{tmp_path}/deep/sa1.tar", ShardKind.TAR),
        ShardSource("sa0", f"{tmp_path}/sa0.tar", ShardKind.TAR),
    ]
    members, ignored = index(store, tmp_path, ShardKind.FOLDER)
    assert [member.key for member in members] == ["a.jpg", "deep/b.PNG"]
    assert ignored == 1


def test_tars_lists_and_single_images_are_known_by_their_names(store: Store, tmp_path: Path) -> None:
    """One mechanism for everything that SHARD= may be, several with commas, in one order."""
    put(tmp_path, b_tar=tar_of(), a_txt=b"", c_jsonl=b"", d_jpeg=b"x")
    source = ", ".join(str(tmp_path / name) for name in ("d.jpeg", "b.tar", "c.jsonl", "a.txt", "b.tar"))
    assert [(shard.name, shard.kind) for shard in find_shards(source, store).shards] == [
        ("a", ShardKind.LIST),
        ("b", ShardKind.TAR),
        ("c", ShardKind.LIST),
        ("d", ShardKind.LIST),
    ]
    ((member,), _) = index(store, tmp_path / "d.jpeg", ShardKind.LIST)
    assert (member.key, read_back(store, member)) == ("d.jpeg", b"x")


def test_a_glob_of_tars_names_several_and_one_of_images_is_one_shard(store: Store, tmp_path: Path) -> None:
    """Ten thousand images of a glob must not become ten thousand shards."""
    put(tmp_path, s__1_tar=tar_of(), s__2_tar=tar_of(), s__1_jpg=b"x", s__2_jpg=b"y", s__3_png=b"z", s__d__4_jpg=b"")
    assert [shard.name for shard in find_shards(f"{tmp_path}/s/?.tar", store).shards] == ["1", "2"]
    (images,) = find_shards(f"{tmp_path}/*/*.jpg", store).shards
    assert (images.kind, images.name) == (ShardKind.FOLDER, tmp_path.name)
    assert [member.key for member in members_of(index_shard(images, store))] == ["s/1.jpg", "s/2.jpg"]


def test_a_glob_of_folders_names_each(store: Store, tmp_path: Path) -> None:
    """Folders per day or per camera."""
    put(tmp_path, day1__a_jpg=b"x", day1__b__c_jpg=b"x", day2__a_jpg=b"x", night__a_jpg=b"x")
    assert [shard.name for shard in find_shards(f"{tmp_path}/day*", store).shards] == ["day1", "day2"]


def test_a_name_with_wildcards_that_is_there_is_itself(store: Store, tmp_path: Path) -> None:
    """`photos [2024]` is a common folder name."""
    put(tmp_path / "photos [2024]", a_jpg=b"x")
    (shard,) = find_shards(f"{tmp_path}/photos [2024]", store).shards
    assert shard.name == "photos-2024"
    assert [member.key for member in members_of(index_shard(shard, store))] == ["a.jpg"]


def test_a_folder_whose_name_ends_like_a_file_is_a_folder(store: Store, tmp_path: Path) -> None:
    """Unpacked archives often keep `.tar` or a version in their names."""
    put(tmp_path / "sa_000020.tar", a_jpg=b"x")
    put(tmp_path / "v1.2", a_jpg=b"x")
    assert [shard.kind for shard in find_shards(f"{tmp_path}/sa_000020.tar,{tmp_path}/v1.2", store).shards] == [
        ShardKind.FOLDER,
        ShardKind.FOLDER,
    ]


def test_shard_names_are_safe_in_paths_and_unique(store: Store, tmp_path: Path) -> None:
    """A part is named after its shard, also on file systems that ignore case."""
    put(tmp_path, x__Sa_tar=tar_of(), y__sa_tar=tar_of(), z__other_tar=tar_of())
    for hostile in ("x..", "\n<b>é", "a" * 220):
        (tmp_path / f"{hostile} .tar").write_bytes(tar_of())
    names = [
        shard.name for shard in find_shards(f"{tmp_path}/z,{tmp_path}/x,{tmp_path}/y,{tmp_path}/*.tar", store).shards
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,90}", name) for name in names)
    assert len({name.casefold() for name in names}) == len(names) == 6
    assert sum(bool(re.fullmatch(r"[Ss]a-[0-9a-f]{8}", name)) for name in names) == 2
    assert "other" in names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "nothing is at"),
        ("none/", "nothing is at"),
        ("none.tar", "nothing is at"),
        ("*.none", "nothing matches"),
        ("**/*.jpg", "name the folder"),
        ("docs", r"holds no image and no \.tar \(but readme\.md\)"),
        ("a.parquet", "of no known kind"),
        ("a.tar.gz", "unpack it to a plain .tar"),
        ("a.zip", "unpack it to a plain .tar"),
        (" , ", "source is empty"),
    ],
)
def test_a_source_that_names_nothing_usable_says_what_it_may_be(
    store: Store, tmp_path: Path, name: str, said: str
) -> None:
    """The first command of a new user is often a little wrong."""
    put(tmp_path, docs__readme_md=b"x", a_parquet=b"x", a_tar_gz=b"x", a_zip=b"x", b_jpg=b"x")
    with pytest.raises(ConfigError, match=said):
        find_shards(name if "," in name else f"{tmp_path}/{name}", store)


def test_s3_sources_are_found_like_local_ones(s3_endpoint: str, s3_client: Any, s3_bucket: str) -> None:
    """The same words, over a real server."""
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    data = tar_of(("1.jpg", b"one"), ("1.json", b"{}"), ("2.jpg", b"two two"))
    for key, body in {"in/s 0.tar": data, "in/s 1.tar": data, "in/x/a.jpg": b"x", "in/l.txt": b"x/a.jpg\n"}.items():
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=body)
    root = f"s3://{s3_bucket}/in"
    assert [shard.name for shard in find_shards(root, store).shards] == ["in", "s-0", "s-1"]
    assert [shard.name for shard in find_shards(f"{root}/s*1.tar", store).shards] == ["s-1"]
    assert find_shards(f"s3://{s3_bucket}", store).shards[0].uri == f"s3://{s3_bucket}"
    found = index_shard(ShardSource("s", f"{root}/s 0.tar", ShardKind.TAR), store)
    assert [(member.key, read_back(store, member)) for member in members_of(found)] == [
        ("1.jpg", b"one"),
        ("2.jpg", b"two two"),
    ]
    assert found.ignored_count == 1
    (listed,) = members_of(index_shard(ShardSource("l", f"{root}/l.txt", ShardKind.LIST), store))
    assert (listed.uri, read_back(store, listed)) == (f"{root}/x/a.jpg", b"x")


# ---- what is inside


def test_a_folder_is_searched_for_images_and_the_rest_is_counted(store: Store, tmp_path: Path) -> None:
    """Extensions in any case; macOS companions are no images; an empty file is one, to be reported later."""
    put(tmp_path, a_JPG=b"x", b_webp=b"", c_json=b"{}", d__e_TiFF=b"x", d__f=b"x", d__g_JSON=b"{}")
    (tmp_path / "._a.JPG").write_bytes(b"fork")
    (shard,) = find_shards(str(tmp_path), store).shards
    found = index_shard(shard, store)
    members = members_of(found)
    assert [(member.key, member.length) for member in members] == [("a.JPG", 1), ("b.webp", 0), ("d/e.TiFF", 1)]
    assert found.ignored == (
        Ignored(".json", 2, "c.json"),
        Ignored("hidden", 1, "._a.JPG"),
        Ignored("no extension", 1, "d/f"),
    )
    assert [read_back(store, member) for member in members] == [b"x", b"", b"x"]


def test_a_list_names_uris_relative_to_itself(store: Store, tmp_path: Path) -> None:
    """A list travels with its images; comments and blank lines are for people."""
    text = "\ufeff# my images\n\n a b.jpg \r\n../up.jpg\n/abs/c.jpg\ns3://b/k#1.jpg\nfile:///x/%41.jpg\n"
    put(tmp_path / "lists", all_txt=text.encode())
    members, ignored = index(store, tmp_path / "lists" / "all.txt", ShardKind.LIST, mixed_lists=True)
    assert [(member.key, member.uri) for member in members] == [
        (" a b.jpg ", f"{tmp_path}/lists/ a b.jpg "),
        ("../up.jpg", f"{tmp_path}/up.jpg"),
        ("/abs/c.jpg", "/abs/c.jpg"),
        ("s3://b/k#1.jpg", "s3://b/k#1.jpg"),
        ("file:///x/%41.jpg", "/x/A.jpg"),
    ]
    assert {(member.offset, member.length, member.etag) for member in members} == {(0, 0, "")}
    assert ignored == 2


def test_lines_of_a_list_are_names_whatever_they_begin_with(store: Store, tmp_path: Path) -> None:
    """`ls > photos.txt` makes them; two names vanished uncounted, and one was looked for in somebody's home."""
    put(tmp_path, l_txt=b"#1 sunset.jpg\n~draft.jpg\n lead.jpg\n~/home.jpg\n# a comment\n   \n#\nl.txt\n")
    found = index_shard(ShardSource("l", f"{tmp_path}/l.txt", ShardKind.LIST), store)
    assert [member.uri for member in members_of(found)] == [
        f"{tmp_path}/#1 sunset.jpg",
        f"{tmp_path}/~draft.jpg",
        f"{tmp_path}/ lead.jpg",
        os.path.expanduser("~/home.jpg"),
    ]
    assert found.ignored == (
        Ignored("comment", 2, "# a comment"),
        Ignored("empty line", 1, "line 6"),
        Ignored("the list itself", 1, "l.txt"),
    )


@pytest.mark.parametrize("name", ["000.tar", "more.txt", "b.jsonl", "s3://b/x.tar.gz"])
def test_a_list_of_shards_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    """Each tar would be read whole into memory, as an image."""
    put(tmp_path, l_txt=f"a.jpg\n{name}\n".encode())
    with pytest.raises(ConfigError, match=r"l\.txt:2 names a shard \(.*\), not an image; name shards in source="):
        index(store, tmp_path / "l.txt", ShardKind.LIST)


def test_a_jsonl_list_names_uris_in_objects(store: Store, tmp_path: Path) -> None:
    """Names with line breaks need it, and other keys are the user's."""
    lines = [{"uri": "a\nb.jpg", "label": 3}, {"uri": "s3://b/k"}]
    put(tmp_path, all_jsonl="\n".join(map(json.dumps, lines)).encode())
    members, _ = index(store, tmp_path / "all.jsonl", ShardKind.LIST, mixed_lists=True)
    assert [member.uri for member in members] == [f"{tmp_path}/a\nb.jpg", "s3://b/k"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("l.jsonl", b'{"uri": "a.jpg"}\n{"url": "b.jpg"}', r"l\.jsonl:2: expected an object like"),
        ("l.jsonl", b'["a.jpg"]', r"l\.jsonl:1: expected an object"),
        ("l.jsonl", b'{"uri": "\\ud800"}', r"l\.jsonl:1: expected an object"),
        ("l.txt", b"\xff\xd8\xff", r"l\.txt:1 is not UTF-8 text"),
        ("l.txt", b"https://x/a.jpg\nhttps://x/b.jpg", r"none of the 2 entries.*/l\.txt:1: .*no store for https://"),
    ],
)
def test_a_list_that_is_none_says_in_which_line(
    store: Store, tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    """Lists are made by scripts, and scripts have bugs."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        index(store, tmp_path / name, ShardKind.LIST)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("https://x/b.jpg", r"l\.txt:2: .*no store for https://"),
        ("s3://bucket", r"l\.txt:2: s3://bucket names a bucket"),
        ("s3:///a.jpg", r"l\.txt:2: .*names no bucket"),
        ("/a\0.jpg", r"l\.txt:2: .*NUL"),
    ],
)
def test_an_entry_that_no_store_could_hold_is_one_broken_member(
    store: Store, tmp_path: Path, line: str, said: str
) -> None:
    """Among millions of lines some are always wrong: each costs its own row, not the run."""
    put(tmp_path, l_txt=f"a.jpg\n{line}\nb.jpg".encode())
    members, _ = index(store, tmp_path / "l.txt", ShardKind.LIST)
    assert [member.key for member in members] == ["a.jpg", line, "b.jpg"]
    assert [bool(member.broken) for member in members] == [False, True, False]
    assert re.search(said, members[1].broken)


# ---- what is left out, and said


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
    """Of `000.tar`, `001.tar.gz` and `002.tgz` the run did the first, and said nothing of the others."""
    put(tmp_path, **{"000_tar": tar_of(("a.jpg", b"x")), "001_tar_gz": b"x", "002_tgz": b"x"})
    with pytest.raises(ConfigError, match=r"2 archives that cannot be read \(001\.tar\.gz, 002\.tgz\); unpack them"):
        find_shards(str(tmp_path), store)
    assert [shard.name for shard in find_shards(f"{tmp_path}/*.tar", store).shards] == ["000"]


@pytest.mark.parametrize("name", ["a.TAR.GZ", "a.tbz", "a.tar.Z", "a.tlz", "a.tar.lz4", "a.tar.zst", "a.zip", "b/a.7z"])
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


def test_a_glob_in_a_bucket_asks_for_what_begins_like_it(s3_endpoint: str, s3_client: Any, s3_bucket: str) -> None:
    """A bucket has no folders to leave out, but its keys are in order."""
    for key in ("in/day1/a.jpg", "in/day2/b.jpg", "in/night/c.jpg"):
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=b"x")
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    listed = [info.uri for info in store.list(f"s3://{s3_bucket}/in", pattern=["day*"])]
    assert listed == [f"s3://{s3_bucket}/in/day1/a.jpg", f"s3://{s3_bucket}/in/day2/b.jpg"]
    assert [shard.name for shard in find_shards(f"s3://{s3_bucket}/in/day?", store).shards] == ["day1", "day2"]


def test_leading_folders_that_are_there_are_names_and_no_patterns(store: Store, tmp_path: Path) -> None:
    """`trip [2024]/*/*.jpg` matched nothing."""
    put(tmp_path / "trip [2024]" / "day 1", a_jpg=b"x")
    (shard,) = find_shards(f"{tmp_path}/trip [2024]/*/*.jpg", store).shards
    assert [member.key for member in members_of(index_shard(shard, store))] == ["day 1/a.jpg"]
    assert shard_is_there(Shard("s", shard.uri, "folder", 1, 0), f"{tmp_path}/trip [2024]/day 1/a.jpg", store)
