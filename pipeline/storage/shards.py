"""What `source` names: finding the shards, and the images inside each.

Owns the words folder, tar and list, and the names of shards. Reads listings and tar headers, never pixels. The names
of images are data: they are passed on and never used as paths.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import ConfigError, DeniedError, NotFoundError
from pipeline.storage.globs import glob_matches, has_wildcard, is_glob, split_glob
from pipeline.storage.kinds import IMAGE_EXTENSIONS, extension, is_compressed, is_image, is_list, is_tar
from pipeline.storage.lists import named_in_list
from pipeline.storage.protocol import ObjectInfo, Store
from pipeline.storage.tars import DamagedTarError, EntryKind, TarEntry, scan_tar
from pipeline.storage.uris import (
    absolute,
    base_name,
    join,
    relative_key,
    sort_key,
)

_KNOWN = "a folder or s3:// prefix of images, a .tar, a .txt or .jsonl list of URIs, or one image"
_LONGEST_NAME = 80


class ShardKind(StrEnum):
    """How a shard holds its images."""

    FOLDER = "folder"
    """Every image below a folder or prefix, or every image that a glob matches."""
    TAR = "tar"
    """The images in an uncompressed tar."""
    LIST = "list"
    """The images whose URIs a text or JSONL file names; also one image by itself."""


@dataclass(frozen=True, slots=True)
class ShardSource:
    """A shard before its images are known. `name` is a slug, unique among the shards found with it."""

    name: str
    uri: str
    kind: ShardKind


@dataclass(frozen=True, slots=True)
class FoundMember:
    """One image of a shard, in the shard's own order.

    key     its name inside the shard; keys may repeat
    offset  first byte in the object at `uri`
    length  bytes; 0 is the whole object, of a size that is not known yet (or no bytes at all, if `broken` is set)
    etag    the object's identity; "" if unknown
    broken  why there are no usable bytes here; "" for real members
    """

    key: str
    uri: str
    offset: int
    length: int
    etag: str
    broken: str = ""


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The images of a shard, and how many other entries lie beside them."""

    members: tuple[FoundMember, ...]
    ignored_count: int


def find_shards(source: str, store: Store) -> list[ShardSource]:
    """The shards that `source` names, ordered by URI; each once, however often it is named.

    source  one or several (comma-separated) of: folder, s3:// prefix, .tar, .txt/.jsonl list, image, or a glob of these
    raises  ConfigError if nothing is there, or nothing that could be used; StorageError
    """
    named = _named(source.strip(), store)
    if not named:
        raise ConfigError(f"source is empty; name {_KNOWN}")
    found = {(uri, kind) for part in named for uri, kind in _shards_at(part, store)}
    ordered = sorted(found, key=lambda shard: (sort_key(shard[0]), shard[1]))
    return [ShardSource(name, uri, kind) for name, (uri, kind) in zip(_names(ordered), ordered, strict=True)]


def index_shard(shard: ShardSource, store: Store) -> ShardIndex:
    """Every image in the shard.

    raises  ConfigError if the shard cannot be used at all (a compressed tar, a list that is none); StorageError
    """
    match shard.kind:
        case ShardKind.FOLDER:
            return _index_folder(shard.uri, store)
        case ShardKind.TAR:
            return _index_tar(shard.uri, store)
        case ShardKind.LIST:
            return _index_list(shard.uri, store)


def _named(source: str, store: Store) -> list[str]:
    """What stands between the commas; a source that is there letter for letter, commas and all, is one."""
    if "," in source and is_there(absolute(source), store):
        return [source]
    return [part.strip() for part in source.split(",") if part.strip()]


def is_there(uri: str, store: Store) -> bool:
    """An object, or a folder or prefix that shows something."""
    try:
        store.head(uri)
    except (NotFoundError, DeniedError):
        try:
            return next(iter(store.list(uri)), None) is not None
        except (NotFoundError, DeniedError):
            return False
    return True


def _shards_at(named: str, store: Store) -> list[tuple[str, ShardKind]]:
    uri = absolute(named)
    if named.endswith("/"):
        return _shards_in_folder(uri, store)
    kind = _file_kind(uri)
    if kind is not None or extension(uri) or is_compressed(uri):
        try:
            store.head(uri)
        except NotFoundError:
            pass  # perhaps a folder with a dot in its name, or a glob
        else:
            return [(uri, _known_kind(uri, kind))]
    if is_glob(uri, store):
        return _shards_of_glob(uri, store)
    return _shards_in_folder(uri, store)


def _shards_in_folder(uri: str, store: Store) -> list[tuple[str, ShardKind]]:
    """The tars below a folder, and the folder itself if loose images lie there as well."""
    shards: list[tuple[str, ShardKind]] = []
    others: list[str] = []
    has_images = False
    for info in store.list(uri):
        if is_tar(info.uri):
            shards.append((info.uri, ShardKind.TAR))
        elif is_image(info.uri):
            has_images = True
        elif len(others) < 3:
            others.append(base_name(info.uri))
    if has_images:
        shards.append((uri, ShardKind.FOLDER))
    if not shards and not others:
        raise ConfigError(f"source: nothing is at {uri}; check the name. It may be {_KNOWN}")
    if not shards:
        raise ConfigError(
            f"source: {uri} holds no image and no .tar (but {', '.join(others)}); images end in "
            f"{', '.join(sorted(IMAGE_EXTENSIONS))}"
        )
    return shards


def _shards_of_glob(uri: str, store: Store) -> list[tuple[str, ShardKind]]:
    """Tars and lists that match are shards each, the images that match are one, and so is each folder that matches."""
    depth = len(split_glob(uri)[1])
    shards: list[tuple[str, ShardKind]] = []
    folders: dict[str, None] = {}
    has_images = False
    for info, parts in glob_matches(uri, store):
        if len(parts) > depth:
            folders[join(split_glob(uri)[0], "/".join(parts[:depth]))] = None
        elif is_image(info.uri):
            has_images = True
        else:
            shards.append((info.uri, _known_kind(info.uri, _file_kind(info.uri))))
    for folder in folders:
        shards.extend(_shards_in_folder(folder, store))
    if has_images:
        shards.append((uri, ShardKind.FOLDER))
    if not shards:
        raise ConfigError(f"source: nothing matches {uri}; check the pattern")
    return shards


def _index_folder(uri: str, store: Store) -> ShardIndex:
    base, objects = uri, store.list(uri)
    if is_glob(uri, store):
        base, patterns = split_glob(uri)
        objects = (info for info, parts in glob_matches(uri, store) if len(parts) == len(patterns))
    members: list[FoundMember] = []
    ignored = 0
    for info in objects:
        if is_image(info.uri):
            members.append(FoundMember(relative_key(base, info.uri), info.uri, 0, info.size, info.etag))
        elif not is_tar(info.uri):
            ignored += 1
    return ShardIndex(tuple(members), ignored)


def _index_tar(uri: str, store: Store) -> ShardIndex:
    """Members before a damage are kept; what follows it is one broken member."""
    info = store.head(uri)
    members: list[FoundMember] = []
    ignored = 0
    try:
        with store.open(uri, etag=info.etag) as stream:
            if info.size == 0:
                raise DamagedTarError(0, "expected a tar, found an empty file")
            for entry in scan_tar(stream, size=info.size, uri=uri):
                if entry.kind is EntryKind.FOLDER or not is_image(entry.name):
                    ignored += 1
                else:
                    members.append(_tar_member(entry, info))
    except DamagedTarError as damage:
        reason = f"{uri} is damaged at byte {damage.offset}: {damage.reason}; what follows was not read"
        members.append(FoundMember(f"{base_name(uri)}@{damage.offset}", uri, damage.offset, 0, info.etag, reason))
    return ShardIndex(tuple(members), ignored)


def _tar_member(entry: TarEntry, tar: ObjectInfo) -> FoundMember:
    broken = ""
    if entry.kind is not EntryKind.FILE:
        broken = f"it is a {entry.kind} in {tar.uri}; only plain files are read"
    elif entry.length == 0:
        broken = f"it is an empty file in {tar.uri}"
    length = 0 if broken else entry.length
    return FoundMember(entry.name, tar.uri, entry.offset, length, tar.etag, broken)


def _index_list(uri: str, store: Store) -> ShardIndex:
    """Nobody looks whether what a list names exists; an image is a list of itself."""
    if is_image(uri):
        info = store.head(uri)
        return ShardIndex((FoundMember(base_name(uri), uri, 0, info.size, info.etag),), 0)
    members = tuple(FoundMember(key, found, 0, 0, "") for key, found in named_in_list(store.read(uri), uri))
    return ShardIndex(members, 0)


def _file_kind(uri: str) -> ShardKind | None:
    if is_tar(uri):
        return ShardKind.TAR
    return ShardKind.LIST if is_list(uri) or is_image(uri) else None


def _known_kind(uri: str, kind: ShardKind | None) -> ShardKind:
    if kind is not None:
        return kind
    if is_compressed(uri):
        raise ConfigError(f"source: {uri} is compressed; images do not shrink, so unpack it to a plain .tar first")
    raise ConfigError(f"source: {uri} is of no known kind; it may be {_KNOWN}")


def _names(shards: Iterable[tuple[str, ShardKind]]) -> list[str]:
    """Slugs of the base names; where two shards would share one (in any case), all of them get a hash of the URI."""
    uris = [uri for uri, _ in shards]
    slugs = [_slug(uri) for uri in uris]
    counts = Counter(slug.casefold() for slug in slugs)
    return [
        slug if counts[slug.casefold()] == 1 else f"{slug}-{hashlib.sha256(sort_key(uri)).hexdigest()[:8]}"
        for slug, uri in zip(slugs, uris, strict=True)
    ]


def _slug(uri: str) -> str:
    name = base_name(uri)
    stem = posixpath.splitext(name)[0] if _file_kind(uri) else name
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:_LONGEST_NAME].strip("-")
    if not slug and has_wildcard(uri):
        return _slug(split_glob(uri)[0])
    return slug or "shard"
