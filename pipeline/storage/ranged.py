"""An object of a store as a file that can be read from anywhere: each read is a request for a range of bytes.

Owns the position alone. For formats whose readers look at the end, or at a few columns, of something large.
"""

from __future__ import annotations

import io

from pipeline.storage.store import ObjectInfo, Store


class RangedFile(io.RawIOBase):
    """Nothing is kept between two reads. They raise what `Store.read` raises, ChangedError if the object is not the one
    of `info` any more."""

    def __init__(self, info: ObjectInfo, store: Store) -> None:
        super().__init__()
        self._info, self._store = info, store
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._info.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._info.size - self._position)
        length = left if size is None or size < 0 else min(size, left)
        if not length:
            return b""
        data = self._store.read(self._info.uri, offset=self._position, length=length, etag=self._info.etag)
        self._position += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
