"""A store on a file system. A file is created by hard link, so it is there as a whole or not at all.

Owns atomic creation and the meaning of a local etag (modification time and size). Retries nothing: few local errors go
away by waiting, and the retry of the chunk covers those.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import BinaryIO

from pipeline.errors import ChangedError, ConfigError, DeniedError, NotFoundError, StorageError
from pipeline.storage.store import ObjectInfo, check_size
from pipeline.storage.uris import local_path, local_uri

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{32}")
_ORPHANED_S = 86_400.0
"""A temporary file lives for the seconds of one write. If it is this old, its writer was killed."""
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class LocalStore:
    """See `Store`. URIs that it returns are canonical: absolute paths, or `file://` for names that are not UTF-8."""

    def __init__(self) -> None:
        self._swept: set[str] = set()

    def head(self, uri: str) -> ObjectInfo:
        """See `Store`; symbolic links are followed."""
        path = local_path(uri)
        with _translated(uri):
            return ObjectInfo(local_uri(path), *_size_and_etag(uri, os.stat(path)))

    def list(
        self, uri: str, *, pattern: Sequence[str] = (), unreadable: Callable[[str], object] | None = None
    ) -> Iterator[ObjectInfo]:
        """Regular files below a folder, sorted; a folder that is not there is empty.

        Each real folder is entered once, so that loops of symbolic links end. A link that leads nowhere is listed
        with size 0, so that it is not lost: reading it says what is missing.
        """
        path = local_path(uri)
        if os.path.isdir(path):
            yield from _walk(path, pattern, unreadable, {_identity(uri, path)})

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        """See `Store`. Raises ChangedError also if the file ends before the range does, or is written to meanwhile."""
        with self.open(uri, etag=etag) as file, _translated(uri):
            check_size(uri, os.fstat(file.fileno()).st_size - offset if length is None else length, limit)
            file.seek(offset)
            data = file.read() if length is None else file.read(length)
            if length is not None and len(data) != length:
                size = os.fstat(file.fileno()).st_size
                raise ChangedError(f"{uri} ends at byte {size}, but {offset + length} bytes were planned")
            if etag:
                _check_etag(uri, os.fstat(file.fileno()), etag)
        return data

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """See `Store`; the stream can also seek."""
        path = local_path(uri)
        with _translated(uri):
            # A FIFO would block open() for ever, so the kind is looked at first.
            _size_and_etag(uri, os.stat(path))
            # A small buffer: hops from tar header to tar header should not read what lies between.
            file = open(path, "rb", buffering=1 << 14)  # noqa: SIM115 - the caller closes it
            try:
                _check_etag(uri, os.fstat(file.fileno()), etag)
            except ChangedError:
                file.close()
                raise
            return file

    def modified(self, uri: str) -> datetime:
        """See `Store`."""
        with _translated(uri):
            return datetime.fromtimestamp(os.stat(local_path(uri)).st_mtime, UTC)

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        """See `Store`. It returns only after the folder entry is on the disk, whether it won or not."""
        path = local_path(uri)
        folder = os.path.dirname(path)
        with _translated(uri):
            _make_folders(folder)
            if folder not in self._swept:
                self._swept.add(folder)
                _remove_orphans(folder)
            status = None if os.path.lexists(path) else _link_new(path, data)
            _sync_folder(folder)
        return None if status is None else ObjectInfo(local_uri(path), *_size_and_etag(uri, status))

    def replace(self, uri: str, data: bytes, *, etag: str) -> ObjectInfo | None:
        """See `Store`. Of two that replace the same file at the same moment, both may be told so; the last stays."""
        path = local_path(uri)
        with suppress(NotFoundError, ChangedError), _translated(uri):
            with _temporary(path, [data]) as temporary:
                _check_etag(uri, os.stat(path), etag)
                status = os.stat(temporary)
                os.replace(temporary, path)
            _sync_folder(os.path.dirname(path))
            return ObjectInfo(local_uri(path), *_size_and_etag(uri, status))
        return None

    def put_stream(self, uri: str, pieces: Iterable[bytes]) -> ObjectInfo:
        """See `Store`."""
        path = local_path(uri)
        with _translated(uri):
            _make_folders(os.path.dirname(path))
            with _temporary(path, pieces) as temporary:
                status = os.stat(temporary)
                os.replace(temporary, path)
            _sync_folder(os.path.dirname(path))
        return ObjectInfo(local_uri(path), *_size_and_etag(uri, status))

    def delete(self, uri: str) -> None:
        """See `Store`."""
        with _translated(uri), suppress(FileNotFoundError):
            os.unlink(local_path(uri))


def is_unmounted(uri: str) -> bool:
    """Whether the nearest folder above a file that is not there is empty, as the folder of an unmounted volume is."""
    folder = os.path.dirname(local_path(uri))
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    with _translated(folder), os.scandir(folder) as scan:
        return next(scan, None) is None


def _link_new(path: str, data: bytes) -> os.stat_result | None:
    """Write a temporary file and give it its final name. What it is then, or None if that name is taken."""
    with _temporary(path, [data]) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A network file system may have made the link and lost the answer. Then the file has a second name.
            if os.stat(temporary).st_nlink != 2:
                return None
        except OSError as error:
            if error.errno in _NO_HARD_LINKS:
                raise ConfigError(
                    f"{path}: this file system has no hard links ({error.strerror}), without which two writers "
                    "could overwrite each other; choose an output folder on a local disk or NFS, or an s3:// prefix"
                ) from error
            raise
        return os.stat(temporary)


@contextmanager
def _temporary(path: str, pieces: Iterable[bytes]) -> Generator[str]:
    """The path of a file beside `path` with these bytes, on the disk; its name is gone afterwards."""
    temporary = os.path.join(os.path.dirname(path), f".tmp-{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _make_folders(folder: str) -> None:
    """Create `folder` and the missing folders above it. Each new entry is on the disk before the next is made.

    raises  ConfigError if something that is not a folder is in the way
    """
    missing: list[str] = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for new in reversed(missing):
        try:
            os.makedirs(new, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(
                f"{new} is to be a folder, but a file or a dead link of that name is in the way ({error.strerror}); "
                "move it away or choose another output folder"
            ) from error
        _sync_folder(os.path.dirname(new))


def _remove_orphans(folder: str) -> None:
    """Remove the files that killed writers left. If a writer still lives, its link fails and it writes again."""
    with os.scandir(folder) as scan:
        for entry in scan:
            if _TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):  # the file is another user's, or another process removed it first
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ORPHANED_S:
                        os.unlink(entry.path)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(
    folder: str,
    pattern: Sequence[str],
    unreadable: Callable[[str], object] | None,
    seen: set[tuple[int, int]],
) -> Iterator[ObjectInfo]:
    """Files in byte order of their paths. For this a folder must sort as its name with a slash behind it."""
    try:
        with _translated(folder), os.scandir(folder) as scan:
            entries = [
                (_is_folder(entry), entry) for entry in scan if not pattern or fnmatchcase(entry.name, pattern[0])
            ]
    except DeniedError:
        if unreadable is None:
            raise
        unreadable(local_uri(folder))
        return
    entries.sort(key=lambda pair: os.fsencode(pair[1].name) + b"/" * pair[0])
    for is_folder, entry in entries:
        if is_folder:
            identity = _identity(entry.path, entry.path)
            if identity not in seen:
                seen.add(identity)
                yield from _walk(entry.path, pattern[1:], unreadable, seen)
        elif len(pattern) < 2 and not _TEMPORARY.fullmatch(entry.name) and (info := _listed(entry)) is not None:
            yield info


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A folder or a link to one. A link that leads nowhere, or in circles, is not a folder."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _listed(entry: os.DirEntry[str]) -> ObjectInfo | None:
    """None for what is not a file (sockets, FIFOs, devices), and for a file that vanished meanwhile."""
    with _translated(entry.path):
        try:
            status = entry.stat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            return ObjectInfo(local_uri(entry.path), 0, "") if entry.is_symlink() else None
        if not stat.S_ISREG(status.st_mode):
            return None
        return ObjectInfo(local_uri(entry.path), *_size_and_etag(entry.path, status))


def _identity(uri: str, path: str) -> tuple[int, int]:
    with _translated(uri):
        status = os.stat(path)
        return status.st_dev, status.st_ino


def _size_and_etag(uri: str, status: os.stat_result) -> tuple[int, str]:
    if stat.S_ISDIR(status.st_mode):
        raise NotFoundError(f"{uri} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise NotFoundError(f"{uri} is no regular file (a pipe, socket or device)")
    return status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _check_etag(uri: str, status: os.stat_result, etag: str) -> None:
    found = _size_and_etag(uri, status)[1]
    if etag and found != etag:
        raise ChangedError(f"{uri} was changed: planned as {etag}, now {found} (modification time and size)")


@contextmanager
def _translated(uri: str) -> Generator[None]:
    """Turns every OSError into one of our errors, with a message that says what to do."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{uri} does not exist ({error.strerror}); check the path") from error
    except PermissionError as error:
        refusing = local_path(uri)
        while not os.path.lexists(refusing):  # also what lies in a folder that lets nobody look
            refusing = os.path.dirname(refusing)
        raise DeniedError(f"{uri}: {error.strerror}; give this user access to {refusing}") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise DeniedError(f"{uri}: the file system is read-only; choose another folder") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(f"{uri}: no space left ({error.strerror}); free some and run again") from error
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise NotFoundError(f"{uri[:200]} cannot exist ({error.strerror}); check the path") from error
        raise StorageError(f"{uri}: {error.strerror or error}") from error
