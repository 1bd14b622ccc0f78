"""The images of one shard: which they are and where their bytes lie.

Owns the reading of a tar's headers and of a list's lines into a member index. Reads no pixels. The names of images
are data: they are passed on and never used as paths. Folders are indexed in shards.py, while shards are found; zips in
zips.py, Parquet files in image_tables.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import ConfigError
from pipeline.records import Ignored
from pipeline.storage.compressed_tars import UnpackedTar
from pipeline.storage.ignored import IgnoredEntries, is_hidden
from pipeline.storage.kinds import is_compressed_tar, is_image
from pipeline.storage.lists import SkippedLine, read_list
from pipeline.storage.members import FoundMember, IndexBuilder, IndexPiece
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.tars import DamagedTarError, EntryKind, TarEntry, scan_tar
from pipeline.storage.uris import base_name


class ShardKind(StrEnum):
    """How a shard holds its images."""

    FOLDER = "folder"
    """Every image below a folder or prefix, or every image that a glob matches."""
    TAR = "tar"
    """The images in an uncompressed tar."""
    COMPRESSED_TAR = "compressed tar"
    """The images in a tar that was compressed as a whole, by gzip or Zstandard; their places are in the unpacked
    tar."""
    ZIP = "zip"
    """The images in a zip file."""
    PARQUET = "parquet"
    """The images in a column of a Parquet file."""
    LIST = "list"
    """The images whose URIs a text or JSONL file names; also one image by itself."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """The images of a shard, and what lies beside them."""

    pieces: tuple[IndexPiece, ...]
    ignored: tuple[Ignored, ...]

    @property
    def ignored_count(self) -> int:
        return sum(each.count for each in self.ignored)

    @property
    def member_count(self) -> int:
        return sum(piece.rows for piece in self.pieces)


def index_tar(uri: str, store: Store) -> ShardIndex:
    """The images of a tar, which may be a compressed one. If it is damaged, the members before the damage are kept, and
    the rest of the tar is one broken member.

    raises  ConfigError if the tar is compressed and its name does not say so; StorageError
    """
    info = store.head(uri)
    builder = IndexBuilder()
    ignored = IgnoredEntries()
    linked: Iterator[TarEntry | None] | None = None
    try:
        for entry in _entries(info, store):
            if entry.kind is EntryKind.FOLDER or not is_wanted(entry.name):
                ignored.note(entry.name, kind="folder" if entry.kind is EntryKind.FOLDER else "")
                continue
            file: TarEntry | None = entry
            if entry.kind is EntryKind.HARD_LINK:
                linked = linked or iter(_linked_files(info, store))
                file = next(linked)
            builder.add(_tar_member(entry.name, file or entry, info))
    except DamagedTarError as damage:
        where = f"{damage.offset} of the unpacked tar" if is_compressed_tar(uri) else damage.offset
        reason = f"{uri} is damaged at byte {where}: {damage.reason}; what follows was not read"
        builder.add(FoundMember(f"{base_name(uri)}@{damage.offset}", uri, damage.offset, 0, info.etag, reason))
    return ShardIndex(builder.finish(), ignored.counted())


def is_wanted(key: str) -> bool:
    """An image by its name below the source."""
    return is_image(key) and not is_hidden(key)


def _entries(tar: ObjectInfo, store: Store) -> Iterator[TarEntry]:
    if tar.size == 0:
        raise DamagedTarError(0, "expected a tar, found an empty file")
    if is_compressed_tar(tar.uri):
        with UnpackedTar(tar.uri, store, etag=tar.etag) as unpacked:
            yield from scan_tar(unpacked, size=None, uri=tar.uri)
        return
    with store.open(tar.uri, etag=tar.etag) as stream:
        yield from scan_tar(stream, size=tar.size, uri=tar.uri)


def _linked_files(tar: ObjectInfo, store: Store) -> list[TarEntry | None]:
    """For each hard link with an image's name, in order, the file that it is; None if no file of that name came before.

    Two more passes over the headers: most tars have no links, and are spared a table of all their names.
    """
    targets = {entry.target for entry in _until_damage(tar, store)}
    files: dict[str, TarEntry] = {}
    found: list[TarEntry | None] = []
    for entry in _until_damage(tar, store):
        file = entry if entry.kind is EntryKind.FILE else files.get(entry.target)
        if file is not None and entry.name in targets:
            files[entry.name] = file
        if entry.kind is EntryKind.HARD_LINK and is_wanted(entry.name):
            found.append(file)
    return found


def _until_damage(tar: ObjectInfo, store: Store) -> Iterator[TarEntry]:
    with suppress(DamagedTarError):
        yield from _entries(tar, store)


def _tar_member(name: str, entry: TarEntry, tar: ObjectInfo) -> FoundMember:
    if entry.kind is EntryKind.FILE and entry.length:
        return FoundMember(name, tar.uri, entry.offset, entry.length, tar.etag)
    if entry.kind is EntryKind.FILE:
        broken = f"it is an empty file in {tar.uri}"
    elif entry.kind is EntryKind.HARD_LINK:
        broken = f"it is a hard link in {tar.uri} to {entry.target!r}, of which nothing comes before it"
    else:
        broken = f"it is a {entry.kind} in {tar.uri}; only plain files and hard links are read"
    return FoundMember(name, tar.uri, entry.offset, 0, tar.etag, broken)


def index_list(uri: str, store: Store, *, mixed: bool = False) -> ShardIndex:
    """The images that a list names. Whether they exist is not checked. A single image counts as a list of itself.

    mixed   whether a list may name objects of the other kind (see lists.other_kind)
    raises  ConfigError if this is not a list, or if no line in it can name an object; StorageError
    """
    builder = IndexBuilder()
    if is_image(uri):
        info = store.head(uri)
        builder.add(FoundMember(base_name(uri), uri, 0, info.size, info.etag))
        return ShardIndex(builder.finish(), ())
    is_any_usable, broken = False, ""
    ignored = IgnoredEntries()
    with store.open(uri) as stream:
        for entry in read_list(stream, uri, mixed=mixed):
            if isinstance(entry, SkippedLine):
                ignored.note(entry.text, kind=entry.kind)
                continue
            builder.add(FoundMember(entry.key, entry.uri, 0, 0, "", entry.broken))
            is_any_usable = is_any_usable or not entry.broken
            broken = broken or entry.broken
    if broken and not is_any_usable:
        raise ConfigError(f"source: none of the {len(builder)} entries can be used; the first one: {broken}")
    return ShardIndex(builder.finish(), ignored.counted())
