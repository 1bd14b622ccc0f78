"""A file of known size and hash from the web into a folder: resumed after a break, checked before it counts.

Owns the unfinished file, and that two processes do not write it at once. Knows nothing of models.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, StorageError

PIECE = 2**20
"""Bytes that are read at a time."""
ANSWER_TIMEOUT_S = 60.0
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before the tries that follow one which brought no byte. One that brought some is followed at once, as often as need
be."""
TRANSIENT = (408, 425, 429)
"""Answers of a client's error that mean: later."""
CONNECTION_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError)
"""What a connection that fails raises; TimeoutError is an OSError, and HTTPError a URLError."""

Told = Callable[[int], object]
"""Called with the bytes that are there, after each piece."""


def download(
    url: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    told: Told = lambda _: None,
    pauses_s: tuple[float, ...] | None = None,
) -> None:
    """Put the file at `path`, unless it is there. What is there has the size; a new one also has the hash.

    A break keeps what has come: at path + ".unfinished", from which the next try goes on, also that of a later call.
    A second process waits for the first.

    raises  ConfigError if the server has another file than was asked for; nothing of it is kept
            StorageError if it cannot be fetched now, or the folder cannot be written
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.with_name(f"{path.name}.lock")):
            if not is_there(path, size):
                _fetch(url, path, size=size, sha256=sha256, told=told)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _fetch(url: str, path: Path, *, size: int, sha256: str, told: Told) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    failures = 0
    while (had := _size_of(unfinished)) < size:
        why = "the connection ended before the file did"
        try:
            _append(url, unfinished, size=size, told=told)
        except _Break as error:
            why = str(error)
        failures = 0 if _size_of(unfinished) > had else failures + 1
        if failures > len(PAUSES_S):
            raise StorageError(f"{url} cannot be fetched: {why}")
        if failures:
            time.sleep(PAUSES_S[failures - 1])
    found = _sha256(unfinished)
    if found != sha256:
        unfinished.unlink()
        raise ConfigError(
            f"{url} has sha256 {found[:12]} and not {sha256[:12]}: it is another file than was published, so nothing "
            "of it was kept; look for a proxy that changes downloads, or fetch the file elsewhere"
        )
    os.replace(unfinished, path)


class _Break(Exception):
    """The connection failed; trying again may help."""


@contextmanager
def _breaking() -> Generator[None]:
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise _Break(str(getattr(error, "reason", "")) or str(error) or type(error).__name__) from error


def _append(url: str, unfinished: Path, *, size: int, told: Told) -> None:
    """What one answer brings, behind what is there."""
    had = _size_of(unfinished)
    answer = _answer(url, had)
    if answer is None:
        unfinished.unlink()
        return
    with answer:
        begins, whole = _extent(answer, had)
        if whole is not None and whole != size:
            raise ConfigError(f"{url} has {whole:,} bytes and not {size:,}: it is another file than was published")
        with open(unfinished, "r+b" if begins else "wb") as file:
            file.seek(begins)
            file.truncate()
            while begins < size and (piece := _read(answer, min(PIECE, size - begins))):
                file.write(piece)
                begins += len(piece)
                told(begins)


def _answer(url: str, had: int) -> http.client.HTTPResponse | None:
    """None if the server knows nothing from that byte on.

    raises  ConfigError if it would answer so again
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})
    with _breaking():
        try:
            return urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                return None
            if 400 <= error.code < 500 and error.code not in TRANSIENT:
                raise ConfigError(f"{url} cannot be fetched: the server says {error.code} {error.reason}") from error
            raise


def _read(answer: http.client.HTTPResponse, most: int) -> bytes:
    with _breaking():
        return answer.read(most)


def _extent(answer: http.client.HTTPResponse, had: int) -> tuple[int, int | None]:
    """Where the answer's bytes begin, and how many the whole file has if that is said."""
    said = answer.headers.get("Content-Range", "")
    part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", said.strip())
    if answer.status == 206 and part and int(part[1]) <= had:
        return int(part[1]), None if part[2] == "*" else int(part[2])
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length and answer.status == 200 and length.isdigit() else None


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(lock: Path) -> Generator[None]:
    """Until no other process is inside; the kernel lets go of the lock when a process ends, in whatever way."""
    with open(lock, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
