"""What `source` names: finding the shards.

Owns the words folder, tar, compressed tar, zip, Parquet file and list, and the canonical spelling of a source. A folder
is listed once: the images in it are noted on the way. Those in tars and lists are indexing.py's, those in zips
zips.py's, those in Parquet files image_tables.py's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from pipeline.errors import ConfigError, ContractError, NotFoundError
from pipeline.records import Ignored
from pipeline.storage.globs import glob_matches, is_glob, split_glob
from pipeline.storage.ignored import IgnoredEntries, is_hidden
from pipeline.storage.image_tables import index_rows
from pipeline.storage.indexing import ShardIndex, ShardKind, index_list, index_tar
from pipeline.storage.kinds import (
    IMAGE_EXTENSIONS,
    extension,
    is_archive,
    is_compressed_tar,
    is_image,
    is_list,
    is_parquet,
    is_tar,
    is_zip,
)
from pipeline.storage.members import FoundMember, IndexBuilder
from pipeline.storage.presence import is_there
from pipeline.storage.shard_names import shard_names
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import absolute, is_s3, join, local_path, relative_key, sort_key
from pipeline.storage.zips import index_zip

_KNOWN = (
    "a folder or s3:// prefix of images, a .tar, .tar.gz or .tar.zst, a .zip, a .parquet, a .txt or .jsonl list of "
    "URIs, or one image"
)
UNREADABLE = "unreadable folder"

_TOLD_EVERY = 10_000

Place = tuple[str, ShardKind]
"""Where a shard is, and what."""
Told = Callable[[int], None]
"""Told how many images a listing has shown so far, now and then."""


@dataclass(frozen=True, slots=True)
class ShardSource:
    """A shard by name. `name` is a slug, unique among the shards found with it. `index` is there for folders, whose
    images were seen when they were listed."""

    name: str
    uri: str
    kind: ShardKind
    index: ShardIndex | None = field(default=None, compare=False)


class FoundSource(NamedTuple):
    """The shards that a source names, ordered by URI, and the source as `spellings` has it.

    ignored  what lies beside the shards; what lies in them is in their indexes
    """

    canonical: str
    shards: list[ShardSource]
    ignored: tuple[Ignored, ...]


def _tell_nobody(_images: int) -> None:
    return


def find_shards(source: str, store: Store, *, listed: Told = _tell_nobody) -> FoundSource:
    """The shards that `source` names, each once, however often it is named.

    source  one or several (comma-separated) of: folder, s3:// prefix, .tar, .txt/.jsonl list, image, or a glob of these
    raises  ConfigError if nothing is there, or nothing that could be used; StorageError
    """
    source = source.strip()
    whole, *separate = spellings(source)
    # A source that is there letter for letter, commas and all, is one.
    is_one = not separate or is_there(whole, store)
    named = [source] if is_one else [part.strip() for part in source.split(",")]
    if not any(named):
        raise ConfigError(f"source is empty; name {_KNOWN}")
    beside = IgnoredEntries()
    found = {place: index for part in filter(None, named) for place, index in _shards_at(part, store, listed, beside)}
    ordered = sorted(found, key=lambda place: (sort_key(place[0]), place[1]))
    names = zip(shard_names([uri for uri, _ in ordered]), ordered, strict=True)
    shards = [ShardSource(name, *place, index=found[place]) for name, place in names]
    return FoundSource(whole if is_one else separate[0], shards, beside.counted())


def spellings(source: str) -> tuple[str, ...]:
    """What `source` may mean, in canonical form: the whole as one name, or the names between its commas.

    A trailing slash, the working folder and the order of the names make no difference. The whole comes first.
    """
    whole = absolute(source.strip())
    if "," not in source:
        return (whole,)
    return whole, ",".join(sorted({absolute(part.strip()) for part in source.split(",") if part.strip()}))


def index_shard(
    shard: ShardSource, store: Store, *, mixed_lists: bool = False, image_column: str | None = None
) -> ShardIndex:
    """Every image in the shard.

    mixed_lists   whether a list may name objects of the other kind (see lists.other_kind)
    image_column  of Parquet files; None finds it

    raises  ConfigError if the shard cannot be used at all (a zip or a list that is none); StorageError
    """
    if shard.index is not None:
        return shard.index
    match shard.kind:
        case ShardKind.TAR | ShardKind.COMPRESSED_TAR:
            return index_tar(shard.uri, store)
        case ShardKind.ZIP:
            return ShardIndex(*index_zip(shard.uri, store))
        case ShardKind.PARQUET:
            return ShardIndex(index_rows(shard.uri, store, column=image_column), ())
        case ShardKind.LIST:
            return index_list(shard.uri, store, mixed=mixed_lists)
        case ShardKind.FOLDER:
            raise ContractError(f"{shard.uri}: a folder is indexed when it is found")


def _shards_at(
    named: str, store: Store, listed: Told, beside: IgnoredEntries
) -> Iterator[tuple[Place, ShardIndex | None]]:
    uri = absolute(named)
    if named.endswith("/"):
        return _some_shards_in_folder(uri, store, listed, beside)
    kind = _file_kind(uri)
    if kind is not None or extension(uri) or is_archive(uri):
        try:
            store.head(uri)
        except NotFoundError:
            pass  # perhaps a folder with a dot in its name, or a glob
        else:
            return iter([((uri, _known_kind(uri, kind)), None)])
    if is_glob(uri, store):
        return _shards_of_glob(uri, store, listed, beside)
    return _some_shards_in_folder(uri, store, listed, beside)


def _some_shards_in_folder(
    uri: str, store: Store, listed: Told, beside: IgnoredEntries
) -> Iterator[tuple[Place, ShardIndex | None]]:
    """raises  ConfigError if there are none"""
    others, found = IgnoredEntries(), False
    for shard in _shards_in_folder(uri, store, listed, others):
        found = True
        yield shard
    if not found:
        raise _no_shard(uri, others.counted())
    beside.add(others.counted())


def _no_shard(uri: str, others: Sequence[Ignored]) -> ConfigError:
    if not others and not is_s3(uri) and os.path.isdir(local_path(uri)):
        return ConfigError(f"source: {uri} is an empty folder; name one that holds images or shards of them")
    if not others:
        return ConfigError(f"source: nothing is at {uri}; check the name. It may be {_KNOWN}")
    for each in others:
        if each.kind == UNREADABLE:
            return ConfigError(f"source: {each.first} may not be read; give this user access to it")
    return ConfigError(
        f"source: {uri} holds no image, no .tar and no .zip (but {', '.join(each.first for each in others[:3])}); "
        f"images end in {', '.join(sorted(IMAGE_EXTENSIONS))}"
    )


def _shards_in_folder(
    uri: str, store: Store, listed: Told, beside: IgnoredEntries
) -> Iterator[tuple[Place, ShardIndex | None]]:
    """The tars and zips below a folder, and the folder itself if loose images lie there as well. Where there is none of
    these, its Parquet files: beside images they are tables about them.
    """
    images, ignored = IndexBuilder(), IgnoredEntries()
    archives, parquets = list[str](), list[str]()
    holds_archives = False
    for info in store.list(uri, unreadable=partial(ignored.note, kind=UNREADABLE)):
        key = relative_key(uri, info.uri)
        if is_hidden(key):
            ignored.note(key)
        elif is_image(key):
            _note(images, key, info, listed)
        elif (kind := _archive_kind(key)) is not None:
            holds_archives = True
            yield (info.uri, kind), None
        elif is_parquet(key) or is_archive(key):
            (parquets if is_parquet(key) else archives).append(key)
        else:
            ignored.note(key)
    if len(images) or holds_archives:
        for key in parquets:
            ignored.note(key)
    else:
        yield from (((join(uri, key), ShardKind.PARQUET), None) for key in parquets)
    counted = ignored.counted()
    _refuse(archives, uri)
    if len(images):
        yield (uri, ShardKind.FOLDER), ShardIndex(images.finish(), counted)
    else:
        beside.add(counted)


def _refuse(archives: Sequence[str], uri: str) -> None:
    if archives:
        raise ConfigError(
            f"source: {uri} holds {len(archives)} archives that cannot be read ({', '.join(archives[:3])}); unpack "
            f"them, move them away, or name what is meant by a glob, such as {uri}/*.tar"
        )


def _shards_of_glob(
    uri: str, store: Store, listed: Told, beside: IgnoredEntries
) -> Iterator[tuple[Place, ShardIndex | None]]:
    """Tars and lists that match are shards each, the images that match are one, and so is each folder that matches."""
    base, patterns = split_glob(uri, store)
    folders: dict[str, None] = {}
    images, ignored = IndexBuilder(), IgnoredEntries()
    means_hidden = any(pattern.startswith(".") for pattern in patterns)
    files = 0
    for info, parts in glob_matches(uri, store, unreadable=partial(ignored.note, kind=UNREADABLE)):
        is_below = len(parts) > len(patterns)
        if not means_hidden and is_hidden("/".join([*parts[: len(patterns)], *[""] * is_below])):
            ignored.note("/".join(parts))
        elif is_below:
            folders[join(base, "/".join(parts[: len(patterns)]))] = None
        elif is_image(info.uri):
            _note(images, "/".join(parts), info, listed)
        else:
            files += 1
            yield (info.uri, _known_kind(info.uri, _file_kind(info.uri))), None
    for folder in folders:
        for shard in _shards_in_folder(folder, store, listed, ignored):
            files += 1
            yield shard
    if len(images):
        yield (uri, ShardKind.FOLDER), ShardIndex(images.finish(), ignored.counted())
    elif files:
        beside.add(ignored.counted())
    elif folders or ignored.counted():
        raise _no_shard(uri, ignored.counted())
    else:
        raise ConfigError(f"source: nothing matches {uri}; check the pattern")


def _note(images: IndexBuilder, key: str, info: ObjectInfo, listed: Told) -> None:
    images.add(FoundMember(key, info.uri, 0, info.size, info.etag))
    if len(images) % _TOLD_EVERY == 0:
        listed(len(images))


def _archive_kind(uri: str) -> ShardKind | None:
    if is_tar(uri):
        return ShardKind.TAR
    if is_compressed_tar(uri):
        return ShardKind.COMPRESSED_TAR
    return ShardKind.ZIP if is_zip(uri) else None


def _file_kind(uri: str) -> ShardKind | None:
    kind = _archive_kind(uri)
    if kind is not None:
        return kind
    if is_parquet(uri):
        return ShardKind.PARQUET
    return ShardKind.LIST if is_list(uri) or is_image(uri) else None


def _known_kind(uri: str, kind: ShardKind | None) -> ShardKind:
    if kind is not None:
        return kind
    if is_archive(uri):
        raise ConfigError(
            f"source: {uri} is an archive of a kind that is not read; images do not shrink, so unpack it to a plain "
            ".tar first"
        )
    raise ConfigError(f"source: {uri} is of no known kind; it may be {_KNOWN}")
