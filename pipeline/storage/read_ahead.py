"""Consecutive members of one object, read in few requests.

Owns which ranges are joined to one request, and the bytes of the last one. What a member's bytes are, member_bytes.py
knows. Files on disk are read as they are: a request is what costs there nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pipeline.storage.store import Store, check_size
from pipeline.storage.uris import is_s3

LONGEST = 8 * 2**20
"""Bytes of one request, unless a single member has more. 8 or 16 MB are usual for ranges (AWS, "Best practices design
patterns: optimizing Amazon S3 performance", use of byte-range fetches)."""
SMALL_GAP = 4096
"""Bytes between two members that are read along in any case: headers, and names longer than those fit."""
SHARE_OF_GAPS = 1 / 8
"""Of a request, for what else lies between its members: SA-1B has an annotation between two images."""


class Extent(NamedTuple):
    """Where a member's bytes are about to be asked for."""

    uri: str
    start: int
    stop: int


class Reads(Protocol):
    """The one method of a Store that reading a member takes."""

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes: ...


class ReadAhead:
    """Reads ranges of objects, and with them those that come next in `extents` if they lie close behind.

    extents  in the order in which they will be asked for; others may be asked for as well, or some left out
    """

    def __init__(self, extents: Sequence[Extent], store: Store) -> None:
        self._extents, self._store = extents, store
        self._reached = 0
        self._held = (Extent("", 0, 0), "", b"")
        """What was read last, of which etag, and its bytes."""

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        """See `Store`. It raises for a range what it would raise if this range were read alone."""
        if length is None or not is_s3(uri):
            return self._store.read(uri, offset=offset, length=length, etag=etag, limit=limit)
        check_size(uri, length, limit)
        held, of_etag, data = self._held
        if (held.uri, of_etag) != (uri, etag) or not held.start <= offset <= offset + length <= held.stop:
            held = self._joined(Extent(uri, offset, offset + length))
            data = self._store.read(uri, offset=offset, length=held.stop - offset, etag=etag)
            self._held = (held, etag, data)
        return data[offset - held.start : offset - held.start + length]

    def _joined(self, asked: Extent) -> Extent:
        """The range, up to the end of the last one that comes next and lies close."""
        numbers = range(self._reached, len(self._extents))
        number = next((n for n in numbers if self._extents[n][:2] == asked[:2]), None)
        if number is None:
            return asked
        self._reached = number + 1
        stop, gaps = asked.stop, 0
        for extent in self._extents[number + 1 :]:
            gap, length = max(0, extent.start - stop), extent.stop - asked.start
            is_close = gap <= SMALL_GAP or gaps + gap <= length * SHARE_OF_GAPS
            if extent.uri != asked.uri or extent.start < asked.start or length > LONGEST or not is_close:
                break
            stop, gaps = max(stop, extent.stop), gaps + gap
        return asked._replace(stop=stop)
