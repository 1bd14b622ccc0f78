"""What `source` names, told apart from how it was typed; and whether it is still there.

Owns the canonical spelling and the look at a shard's root. What a source may be, and the images in it, are
storage/shards.py's.
"""

from __future__ import annotations

from pipeline.records import Shard
from pipeline.storage.globs import glob_matches, has_wildcard
from pipeline.storage.shards import ShardKind, is_there
from pipeline.storage.store import Store
from pipeline.storage.uris import absolute


def spellings(source: str) -> tuple[str, ...]:
    """What `source` may mean, in canonical form: the whole as one name, or the names between its commas.

    A trailing slash, the working folder and the order of the names make no difference. The whole comes first.
    """
    whole = absolute(source.strip())
    if "," not in source:
        return (whole,)
    return whole, ",".join(sorted({absolute(part.strip()) for part in source.split(",") if part.strip()}))


def canonical(source: str, store: Store) -> str:
    """The one of the spellings that holds now: the whole if it is there letter for letter, commas and all."""
    whole, *names = spellings(source)
    return whole if not names or is_there(whole, store) else names[0]


def shard_is_there(shard: Shard, member_uri: str, store: Store) -> bool:
    """Whether the shard that `member_uri` was planned in still shows anything at all.

    A list promises nothing about the places that it names, so it is always there.
    """
    if shard.kind == ShardKind.LIST:
        return True
    is_pattern = has_wildcard(shard.uri) and not member_uri.startswith(f"{shard.uri}/")
    if shard.kind == ShardKind.FOLDER and is_pattern:
        return next(glob_matches(shard.uri, store), None) is not None
    return is_there(shard.uri, store)
