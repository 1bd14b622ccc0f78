"""What a source may name, and the shards and images that are found by it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.records import Ignored, Shard
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.presence import shard_is_there
from pipeline.storage.shards import ShardKind, ShardSource, find_shards, index_shard
from pipeline.storage.store import Store
from tests.storage.few_rights import as_a_user_with_few_rights, folder_for_all
from tests.storage.samples import members_of, tar_of
from tests.storage.sources import index, put, read_back


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


def test_leading_folders_that_are_there_are_names_and_no_patterns(store: Store, tmp_path: Path) -> None:
    """`trip [2024]/*/*.jpg` matched nothing."""
    put(tmp_path / "trip [2024]" / "day 1", a_jpg=b"x")
    (shard,) = find_shards(f"{tmp_path}/trip [2024]/*/*.jpg", store).shards
    assert [member.key for member in members_of(index_shard(shard, store))] == ["day 1/a.jpg"]
    assert shard_is_there(Shard("s", shard.uri, "folder", 1, 0), f"{tmp_path}/trip [2024]/day 1/a.jpg", store)


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
        ("bare", "bare is an empty folder"),
        ("*.none", "nothing matches"),
        ("**/*.jpg", "name the folder"),
        ("docs", r"holds no image, no \.tar and no \.zip \(but readme\.md\)"),
        ("a.csv", "of no known kind"),
        ("a.tar.xz", "unpack it to a plain .tar"),
        ("a.7z", "unpack it to a plain .tar"),
        (" , ", "source is empty"),
    ],
)
def test_a_source_that_names_nothing_usable_says_what_it_may_be(
    store: Store, tmp_path: Path, name: str, said: str
) -> None:
    """The first command of a new user is often a little wrong."""
    put(tmp_path, docs__readme_md=b"x", a_csv=b"x", a_tar_xz=b"x", a_7z=b"x", b_jpg=b"x")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match=said):
        find_shards(name if "," in name else f"{tmp_path}/{name}", store)


@pytest.mark.parametrize("named", ["", "/shut"])
def test_a_folder_that_may_not_be_read_is_named_and_not_called_empty(store: Store, named: str) -> None:
    """What is in it, nobody knows."""
    with folder_for_all() as folder:
        put(folder / "shut", a_jpg=b"x")
        (folder / "shut").chmod(0)
        said = f"{folder}/shut may not be read; give this user access to it"
        with as_a_user_with_few_rights(), pytest.raises(ConfigError, match=said):
            find_shards(f"{folder}{named}", store)


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


def test_a_glob_in_a_bucket_asks_for_what_begins_like_it(s3_endpoint: str, s3_client: Any, s3_bucket: str) -> None:
    """A bucket has no folders to leave out, but its keys are in order."""
    for key in ("in/day1/a.jpg", "in/day2/b.jpg", "in/night/c.jpg"):
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=b"x")
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    listed = [info.uri for info in store.list(f"s3://{s3_bucket}/in", pattern=["day*"])]
    assert listed == [f"s3://{s3_bucket}/in/day1/a.jpg", f"s3://{s3_bucket}/in/day2/b.jpg"]
    assert [shard.name for shard in find_shards(f"s3://{s3_bucket}/in/day?", store).shards] == ["day1", "day2"]


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
