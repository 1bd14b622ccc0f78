"""What a frozen plan and its member index may name. Whoever can write to OUT can edit both, so they are not believed.

Owns the bounds: shards have names that planning gives, and lie in the source, which the command names; images lie in
their shard. So a resume writes nothing outside OUT, and reads nothing that the command did not name. What a list names
is as trustworthy as who writes the list, or OUT (docs/trust.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import ConfigError
from pipeline.records import Member, Shard
from pipeline.storage.globs import covers
from pipeline.storage.indexing import ShardKind
from pipeline.storage.kinds import is_compressed_tar, is_image, is_list, is_parquet, is_tar, is_zip
from pipeline.storage.lists import other_kind
from pipeline.storage.shard_names import is_slug
from pipeline.storage.uris import segments

_EDITED = "nobody planned this, so somebody has edited it: put back what was written, or choose another out="


def check_shards(shards: Sequence[tuple[Shard, Sequence[str]]], *, source: str, plan_uri: str) -> None:
    """Shards, each with the hashes of its index, as they stand in a plan of `source`.

    raises  ConfigError
    """
    if len({shard.name for shard, _ in shards}) < len(shards):
        raise ConfigError(f"{plan_uri} has two shards of one name; {_EDITED}")
    names = [segments(named) for named in (source, *source.split(",")) if named]
    for shard, hashes in shards:
        if not is_slug(shard.name):
            raise ConfigError(f"{plan_uri} names a shard {shard.name!r}; {_EDITED}")
        if not all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in hashes):
            raise ConfigError(f"{plan_uri} has a hash of shard {shard.name} that is none; {_EDITED}")
        parts = segments(shard.uri)
        if not any(covers(named, parts) and _may_come_from(named, parts, shard) for named in names):
            raise ConfigError(f"{plan_uri} has a {shard.kind} {shard.uri}, which is not in source={source}; {_EDITED}")


def _may_come_from(named: Sequence[str], parts: Sequence[str], shard: Shard) -> bool:
    """Whether a name in the source, which covers the shard, may have led to a shard of its kind."""
    match shard.kind:
        case ShardKind.FOLDER:
            return True
        case ShardKind.TAR:
            return is_tar(shard.uri)
        case ShardKind.COMPRESSED_TAR:
            return is_compressed_tar(shard.uri)
        case ShardKind.ZIP:
            return is_zip(shard.uri)
        case ShardKind.PARQUET:
            return is_parquet(shard.uri)
        case ShardKind.LIST:  # those in folders are no shards
            return len(named) == len(parts) and (is_list(shard.uri) or is_image(shard.uri))
        case _:
            return False


def bounded(member: Member, shard: Shard, *, mixed_lists: bool) -> Member:
    """The member, which is broken if it is a line of a list that may not name what it names.

    raises  ConfigError if it lies outside its folder, tar, zip or Parquet file
    """
    if member.broken:
        return member
    if shard.kind == ShardKind.LIST and is_list(shard.uri):
        refusal = "" if mixed_lists else other_kind(shard.uri, member.uri)
        return replace(member, broken=f"{shard.uri}: {refusal}") if refusal else member
    if shard.kind == ShardKind.FOLDER and covers(segments(shard.uri), segments(member.uri)):
        return member
    if shard.kind != ShardKind.FOLDER and member.uri == shard.uri:
        return member
    raise ConfigError(f"the member index of {shard.name} has {member.uri}, which is not in {shard.uri}; {_EDITED}")
