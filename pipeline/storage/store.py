"""What a store is: bytes in, bytes out, by URI.

Owns the promises that both backends keep. Does not know images, parts or plans.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol


class ObjectInfo(NamedTuple):
    """An object as a listing shows it. `etag` changes when the content does. A tuple, because there are millions."""

    uri: str
    size: int
    etag: str


class Store(Protocol):
    """URIs are `s3://bucket/key`, `file:///path` or plain paths. Errors are those of pipeline.errors."""

    def head(self, uri: str) -> ObjectInfo:
        """Raises NotFoundError, DeniedError."""
        ...

    def list(self, uri: str) -> Iterator[ObjectInfo]:
        """Every object below a folder or prefix, recursively, sorted by URI (byte order)."""
        ...

    def read(self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "") -> bytes:
        """All bytes, or a range. With `etag`, ChangedError if the object is another one by now."""
        ...

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """A forward stream that resumes where a broken connection left it."""
        ...

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        """Create the object, whole and durable, or leave the one that is there.

        The object if it is this call's, as a listing will show it as long as nobody replaces it; None if somebody
        else's was first.
        """
        ...

    def delete(self, uri: str) -> None:
        """Remove an object that nobody needs any more; nothing happens if it is not there."""
        ...
