"""The body of one object, or a range of it, complete even if connections break.

Owns the position: after a break the next request starts behind the last byte that came, and asks for the same etag.
"""

from __future__ import annotations

import io
from typing import Any, Protocol

from pipeline.errors import ChangedError, StorageError
from pipeline.storage.retry import Patience, Transient
from pipeline.storage.s3_errors import translated

_STEP = 1 << 20
"""What a break costs at most: botocore gives nothing of the piece that it was reading."""


class Get(Protocol):
    """Calls GetObject with the given `Range` and `IfMatch` and translates its errors."""

    def __call__(self, **options: str) -> Any: ...


class ResumingBody(io.RawIOBase):
    """Bytes [start, stop) of an object, forward only.

    raises  ChangedError if the object is no longer the one of `etag` (or of the first answer), or ends before `stop`
            StorageError if it could not be read before the deadline of `patience`, or if it was read to its end and
            does not match the store's checksum
    """

    def __init__(self, uri: str, get: Get, patience: Patience, *, etag: str, start: int, stop: int | None) -> None:
        super().__init__()
        self._uri = uri
        self._get = get
        self._patience = patience
        self._etag = etag
        self._position = start
        self._stop = stop
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if not view or self._position == self._stop:
            return 0
        data: bytes = self._patience.insist(self._uri, lambda: self._next(len(view)))
        view[: len(data)] = data
        return len(data)

    def find_stop(self) -> int:
        """Where it ends, as the store says before the first byte comes."""
        if self._stop is None:
            self._patience.insist(self._uri, self._open)
        return self._stop or 0

    def readall(self) -> bytes:
        pieces: list[bytes] = []
        while self._stop is None or self._position < self._stop:
            piece = self._patience.insist(self._uri, lambda: self._next(_STEP))
            if not piece:
                break
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self._drop()
        super().close()

    def _next(self, count: int) -> bytes:
        """At most `count` bytes. No bytes only at the end of an object whose size was not known before."""
        body = self._body if self._body is not None else self._open()
        try:
            with translated(self._uri):
                data: bytes = body.read(count)
                if self._position + len(data) == self._stop:
                    body.read(1)  # botocore compares checksums, if there are any, only at the end of the body
            self._position += len(data)
            if not data and self._stop is not None and self._position < self._stop:
                raise Transient(f"the answer ended at byte {self._position} of {self._stop}")
        except (Transient, StorageError):
            self._drop()
            raise
        return data

    def _open(self) -> Any:
        options: dict[str, str] = {}
        if self._position or self._stop is not None:
            last = "" if self._stop is None else str(self._stop - 1)
            options["Range"] = f"bytes={self._position}-{last}"
        if self._etag:
            options["IfMatch"] = f'"{self._etag}"'
        answer = self._get(**options)
        self._body = answer["Body"]
        stop = self._position + int(answer["ContentLength"])
        if self._stop is not None and stop != self._stop:
            self._drop()
            if stop < self._stop:
                raise ChangedError(f"{self._uri} ends at byte {stop}, but {self._stop} bytes were planned")
            raise StorageError(f"{self._uri}: the store ignores ranges; {stop - self._position} bytes came unasked")
        self._stop = stop
        self._etag = self._etag or str(answer["ETag"]).strip('"')
        return self._body

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
