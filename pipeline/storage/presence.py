"""Whether what was named, or planned, is still there."""

from __future__ import annotations

from pipeline.errors import DeniedError, NotFoundError
from pipeline.records import Shard
from pipeline.storage.globs import glob_matches, has_wildcard
from pipeline.storage.indexing import ShardKind
from pipeline.storage.local import is_unmounted
from pipeline.storage.store import Store
from pipeline.storage.uris import is_s3


def is_there(uri: str, store: Store) -> bool:
    """An object, or a folder or prefix that shows something."""
    try:
        store.head(uri)
    except (NotFoundError, DeniedError):
        try:
            return next(iter(store.list(uri, unreadable=lambda _folder: None)), None) is not None
        except (NotFoundError, DeniedError):
            return False
    return True


def shard_is_there(shard: Shard, member_uri: str, store: Store) -> bool:
    """Whether the place where the member at `member_uri` was planned still shows anything at all.

    A list may name places that no longer exist; of these only an empty folder is taken for a place out of reach.
    """
    if shard.kind == ShardKind.LIST:
        return is_s3(member_uri) or not is_unmounted(member_uri)
    is_pattern = has_wildcard(shard.uri) and not member_uri.startswith(f"{shard.uri}/")
    if shard.kind == ShardKind.FOLDER and is_pattern:
        return next(glob_matches(shard.uri, store), None) is not None
    return is_there(shard.uri, store)
