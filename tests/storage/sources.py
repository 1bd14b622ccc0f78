"""Sources laid out in a folder, the shards in them indexed, and their images read back."""

from __future__ import annotations

from pathlib import Path

from pipeline.records import Member
from pipeline.storage.shards import ShardKind, find_shards, index_shard
from pipeline.storage.store import Store
from tests.storage.samples import members_of


def put(folder: Path, **files: bytes) -> None:
    """Files by name, of which `__` stands for a slash and `_` for a dot."""
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
