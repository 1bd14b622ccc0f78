"""What a store is: it reads and writes bytes by URI.

Owns the promises that both backends keep. Does not know images, parts or plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import BinaryIO, NamedTuple, Protocol

from pipeline.errors import TooManyBytesError


class ObjectInfo(NamedTuple):
    """An object as a listing shows it. `etag` changes when the content does. A tuple, because there are millions."""

    uri: str
    size: int
    etag: str


class Store(Protocol):
    """URIs are `s3://bucket/key`, `file:///path` or plain paths. Errors are those of pipeline.errors."""

    def head(self, uri: str) -> ObjectInfo:
        """Size and etag of an object. Raises NotFoundError, DeniedError."""
        ...

    def list(
        self, uri: str, *, pattern: Sequence[str] = (), unreadable: Callable[[str], object] | None = None
    ) -> Iterator[ObjectInfo]:
        """Every object below a folder or prefix, recursively, sorted by URI (byte order).

        pattern     for the leading segments below `uri`, in fnmatch's words: what does not match need not be listed
        unreadable  told of a folder that may not be read, and is left out; without it that is a DeniedError
        """
        ...

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        """All bytes, or a range. With `etag`, raises ChangedError if the object is a different one by now.

        limit  raises TooManyBytesError, and reads none, if there are more bytes than this
        """
        ...

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """A stream that is read forward. If the connection breaks, it resumes at the same byte."""
        ...

    def modified(self, uri: str) -> datetime:
        """When the object was last written, by the store's clock, in UTC. For people: nothing is decided by it."""
        ...

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        """Create the object, whole and durable. If there is one already, leave that one.

        The object if this call created the one that is there now, as a listing will show it; None if another writer was
        first.
        """
        ...

    def replace(self, uri: str, data: bytes, *, etag: str) -> ObjectInfo | None:
        """Put other bytes in the place of the object with this etag, whole and durable. Readers see one or the other.

        The new object; None, and nothing done, if it is not the old one any more.
        """
        ...

    def put_stream(self, uri: str, pieces: Iterable[bytes]) -> ObjectInfo:
        """Put an object of these bytes, one piece after the other, whole and durable, in place of any that is there.

        For what is larger than memory: little more than one piece is held. If a piece is not to be had (an exception of
        `pieces`), nothing has changed. Of two that write the same object at once the last stays.
        """
        ...

    def delete(self, uri: str) -> None:
        """Remove an object that nobody needs any more. Nothing happens if it is not there."""
        ...


def check_size(uri: str, size: int, limit: int | None) -> None:
    """raises  TooManyBytesError"""
    if limit is not None and size > limit:
        raise TooManyBytesError(uri, size)
