"""Bytes that every worker of a node needs are read from the store once a node: the weights.

Owns a folder of the node, in which the copy lies under its hash until the folder goes with Ray's session. The copy is
an economy and nothing else: it is checked each time, and where there is none the store is read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

LOCK = "lock"
UNFINISHED = "unfinished"
LEFT_FREE = 0.1
"""Share of the disk that a copy must leave free. Ray refuses work on a disk that is 95 % full."""


def read_once(sha256: str, read: Callable[[], bytes], *, folder: Path) -> bytes:
    """The bytes with this hash: those that are kept in `folder`, or else what `read` returns, which are kept then.

    While one process reads, the others wait for it; if it is killed, the next one reads. Whatever is wrong with the
    folder or its disk, the bytes are those of `read`. Raises what `read` raises.
    """
    path = folder / sha256
    kept = _kept(path, sha256)
    if kept is None:
        with _alone_in(folder) as alone:
            if not (alone and path.exists()):
                data = read()
                if alone and hashlib.sha256(data).hexdigest() == sha256:
                    _keep(path, data)
                return data
        kept = _kept(path, sha256)
    return read() if kept is None else kept


def _kept(path: Path, sha256: str) -> bytes | None:
    """The copy; None, and gone, if it is not what its name says."""
    try:
        with open(path, "rb", opener=_no_link) as file:
            data = file.read()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() == sha256:
        return data
    with suppress(OSError):
        path.unlink()
    return None


def _keep(path: Path, data: bytes) -> None:
    """In place of what other weights left there."""
    unfinished = path.with_name(UNFINISHED)
    try:
        for other in path.parent.iterdir():
            if other.name != LOCK:
                other.unlink()
        disk = shutil.disk_usage(path.parent)
        if disk.free - len(data) < LEFT_FREE * disk.total:
            return
        with open(unfinished, "wb", opener=_no_link) as file:
            file.write(data)
        unfinished.rename(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def _alone_in(folder: Path) -> Generator[bool]:
    """Until no other process is inside. False at once if the folder cannot be used, or is not this user's alone."""
    lock = _lock_of(folder)
    if lock is None:
        yield False
        return
    with lock:
        yield True


def _lock_of(folder: Path) -> BufferedWriter | None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        lock = open(folder / LOCK, "wb", opener=_no_link)  # noqa: SIM115  # its caller closes it
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it when the process ends, in whatever way
    except OSError:
        return None
    return lock


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)
