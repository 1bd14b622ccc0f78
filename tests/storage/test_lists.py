"""Lists of images, in lines and in JSON: what their entries name, and what is wrong with some."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.records import Ignored
from pipeline.storage.shards import ShardKind, ShardSource, index_shard
from pipeline.storage.store import Store
from tests.storage.samples import members_of
from tests.storage.sources import index, put


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
