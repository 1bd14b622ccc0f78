"""Tars that were compressed as a whole, by gzip or Zstandard: read as the stream that they unpack to, forward only.

Owns the unpacking, and the streams that a process keeps open: a member is reached by unpacking all that comes before
it, so whoever reads on should find the stream where it was left. Places are those in the unpacked tar. Memory holds a
few MiB for a stream, and the window of a Zstandard frame, which may have 128 MiB (more is refused by its decoder).
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from pipeline.errors import ChangedError, InputError
from pipeline.records import Status
from pipeline.storage.arrow import pa
from pipeline.storage.store import Store
from pipeline.storage.tars import DamagedTarError

KEPT_STREAMS = 2
"""A worker has two chunks at work."""
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
"""What follows the first byte of a frame without content, with which parallel packers begin (RFC 8878, 3.1.2)."""
_STEP = 1 << 20
_TAKEN_AHEAD = 256 << 10
"""More compressed bytes than pyarrow takes before it unpacks them."""


class UnpackedTar(io.RawIOBase):
    """The unpacked bytes of the object with this etag.

    pyarrow throws away what it has unpacked in the call that meets damage. So where it meets some, the stream is opened
    once more and fed by single bytes from shortly before: then nothing before the damage is lost.
    """

    def __init__(self, uri: str, store: Store, *, etag: str) -> None:
        super().__init__()
        self.uri, self.etag = uri, etag
        self.position = 0
        self._store = store
        self._source: _Fed | None = None
        self._stream: Any = None
        self._has_met_damage = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes; fewer at the end alone.

        raises  DamagedTarError if the stream is cut or damaged; what `Store.open` and reading from it raise
        """
        if size < 0:
            raise ValueError("an unpacked tar is read by pieces")
        try:
            data = self._unpacked(lambda stream: stream.read(size))
        except OSError as error:
            raise DamagedTarError(self.position, f"its compressed stream is cut or damaged ({error})") from error
        self.position += len(data)
        return data

    def skip_to(self, offset: int) -> None:
        """raises  as `read`"""
        while self.position < offset and self.read(min(_STEP, offset - self.position)):
            pass

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        super().close()

    def _unpacked(self, read: Callable[[Any], bytes]) -> bytes:
        stream = self._stream or self._open(feed_singly_from=None)
        try:
            return read(stream)
        except OSError:
            if self._has_met_damage or self._source is None:
                raise
            self._has_met_damage = True
            taken = self._source.taken
        stream = self._open(feed_singly_from=max(0, taken - _TAKEN_AHEAD))
        left = self.position
        while left and (again := stream.read(min(_STEP, left))):
            left -= len(again)
        return read(stream)

    def _open(self, *, feed_singly_from: int | None) -> Any:
        if self._source is not None:
            self._source.close()
        self._source = _Fed(self._store.open(self.uri, etag=self.etag), feed_singly_from)
        self._stream = pa.CompressedInputStream(pa.PythonFile(self._source, mode="r"), _codec(self._source.begins))
        return self._stream


def _codec(begins: bytes) -> str:
    """raises  OSError if the file is of neither kind"""
    if begins.startswith(_GZIP):
        return "gzip"
    if begins.startswith(_ZSTD) or begins[1:] == _SKIPPABLE:
        return "zstd"
    raise OSError(f"expected gzip or Zstandard, found {begins!r}" if begins else "it is an empty file")


class _Fed(io.RawIOBase):
    """A stream of which it is known how much was taken, and that gives single bytes from some place on."""

    def __init__(self, stream: BinaryIO, singly_from: int | None) -> None:
        super().__init__()
        self._stream, self._singly_from = stream, singly_from
        self.begins = stream.read(4)
        self._given_back = self.begins
        self.taken = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._singly_from is not None and self.taken >= self._singly_from:
            size = 1
        if self._given_back:
            data, self._given_back = self._given_back[:size], self._given_back[size:]
        else:
            data = self._stream.read(size)
        self.taken += len(data)
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()


@functools.lru_cache(maxsize=4)
def compressed_tars(store: Store) -> CompressedTars:
    """The reader of the compressed tars in a store, one for all who read them in this process."""
    return CompressedTars(store)


class CompressedTars:
    """Reads members. Several threads may ask at once, each is served by a stream of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._idle: list[UnpackedTar] = []
        """Where they were left; the one that was used last is the last."""

    def read(self, uri: str, *, etag: str, offset: int, length: int) -> bytes:
        """Bytes of the unpacked tar.

        raises  InputError if it is damaged before they end; ChangedError if it is not the one with this etag any more;
                what `Store.open` raises
        """
        stream = self._nearest(uri, etag, offset)
        try:
            stream.skip_to(offset)
            data = stream.read(length)
        except DamagedTarError as damage:
            stream.close()
            self._expect_unchanged(uri, etag)
            reason = f"{uri} is damaged at byte {damage.offset} of the unpacked tar: {damage.reason}"
            raise InputError(Status.UNREADABLE, reason) from damage
        except BaseException:
            stream.close()
            raise
        if len(data) < length:
            stream.close()
            raise ChangedError(f"{uri} unpacks to {stream.position} bytes, but {offset + length} were planned")
        self._keep(stream)
        return data

    def _nearest(self, uri: str, etag: str, offset: int) -> UnpackedTar:
        """The stream that is the least before the place, or a new one."""
        with self._lock:
            fitting = [each for each in self._idle if (each.uri, each.etag) == (uri, etag) and each.position <= offset]
            if fitting:
                nearest = max(fitting, key=lambda each: each.position)
                self._idle.remove(nearest)
                return nearest
        return UnpackedTar(uri, self._store, etag=etag)

    def _keep(self, stream: UnpackedTar) -> None:
        with self._lock:
            self._idle.append(stream)
            left = self._idle[:-KEPT_STREAMS]
            self._idle = self._idle[-KEPT_STREAMS:]
        for each in left:
            each.close()

    def _expect_unchanged(self, uri: str, etag: str) -> None:
        """A file on disk that is written to while it is read looks damaged."""
        found = self._store.head(uri).etag
        if etag and found != etag:
            raise ChangedError(f"{uri} was changed: planned as {etag}, now {found}")
