"""Sources as large as SA-1B that take no room: tars and listings whose bytes are made when they are asked for.

Owns the making up. `TarsStore` shows a folder of tars laid out as SA-1B's: image, annotation, image, annotation; the
headers are real, what lies between them is not there. Run as a script, this is an HTTP server that answers
ListObjectsV2 over one prefix of numbered keys; it prints its port and serves until it is killed.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO, cast, overload
from urllib.parse import parse_qs, urlsplit

from pipeline.settings import StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.store import ObjectInfo

FOLDER = "/synthetic"
IMAGE_BYTES = 900_000
ANNOTATION_BYTES = 67_000
_BLOCK = tarfile.BLOCKSIZE
_STEP_BYTES = 2 * _BLOCK + -(-IMAGE_BYTES // _BLOCK) * _BLOCK + -(-ANNOTATION_BYTES // _BLOCK) * _BLOCK
"""From one image's header to the next one's."""


class _Header:
    """A tar header for `sa_<eight digits>.<end>`, made once but for the digits."""

    def __init__(self, end: str, size: int) -> None:
        info = tarfile.TarInfo(f"sa_00000000.{end}")
        info.size = size
        block = info.tobuf(tarfile.USTAR_FORMAT)
        self._middle, self._tail = block[11:148], block[156:]
        self._sum = sum(block) - sum(block[148:156]) + 8 * 0x20 - 8 * ord("0")

    def of(self, number: int) -> bytes:
        digits = b"%08d" % number
        return b"sa_%s%s%06o\0 %s" % (digits, self._middle, self._sum + sum(digits), self._tail)


_IMAGE, _ANNOTATION = _Header("jpg", IMAGE_BYTES), _Header("json", ANNOTATION_BYTES)


class _Tar(io.RawIOBase):
    """One tar: only its headers and its end can be read."""

    def __init__(self, first_number: int, images: int) -> None:
        super().__init__()
        self._first, self._images = first_number, images
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = offset
        return offset

    def read(self, count: int = -1, /) -> bytes:
        index, within = divmod(self._position, _STEP_BYTES)
        self._position += count
        if index >= self._images:
            return bytes(count)
        if within == 0:
            return _IMAGE.of(self._first + index)
        return _ANNOTATION.of(self._first + index)


class TarsStore(RoutedStore):
    """The usual stores, and below `FOLDER` tars that do not exist."""

    def __init__(self, tars: int, images: int) -> None:
        super().__init__(StoreSettings())
        self._tars, self._images = tars, images

    def __reduce__(self) -> tuple[type[TarsStore], tuple[int, int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return TarsStore, (self._tars, self._images)

    def list(
        self, uri: str, *, pattern: Sequence[str] = (), unreadable: Callable[[str], object] | None = None
    ) -> Iterator[ObjectInfo]:
        if uri != FOLDER:
            return super().list(uri, pattern=pattern, unreadable=unreadable)
        return (self._info(number) for number in range(self._tars))

    def head(self, uri: str) -> ObjectInfo:
        return self._info(_tar_number(uri)) if uri.startswith(FOLDER) else super().head(uri)

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        if not uri.startswith(FOLDER):
            return super().open(uri, etag=etag)
        return cast("BinaryIO", _Tar(_tar_number(uri) * self._images, self._images))

    def _info(self, number: int) -> ObjectInfo:
        uri = f"{FOLDER}/sa_{number:06d}.tar"
        return ObjectInfo(uri, self._images * _STEP_BYTES + 2 * _BLOCK, hashlib.md5(uri.encode()).hexdigest())


def _tar_number(uri: str) -> int:
    return int(uri[-10:-4])


class _Keys(Sequence[str]):
    """`images/sa_<eight digits>.jpg`, in order, none of them in memory."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [f"images/sa_{number:08d}.jpg" for number in range(self._count)[index]]
        return f"images/sa_{index:08d}.jpg"


class _Lister(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys: _Keys

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads eleven thousand lines."""

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        body = page(self.keys, query)
        self.send_response_only(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def page(keys: Sequence[str], query: dict[str, str]) -> bytes:
    """The answer to one ListObjectsV2 request over sorted `keys`, as S3 words it."""
    prefix, limit = query.get("prefix", ""), int(query.get("max-keys", "1000"))
    after = query.get("continuation-token", query.get("start-after", ""))
    begin = max(bisect_left(keys, prefix), bisect_right(keys, after))
    end = bisect_left(keys, prefix + "\U0010ffff")
    shown = keys[begin : min(end, begin + limit)]
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2023-04-05T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{hashlib.md5(key.encode()).hexdigest()}&quot;</ETag><Size>{IMAGE_BYTES}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key in shown
    )
    more = begin + limit < end
    token = f"<NextContinuationToken>{shown[-1]}</NextContinuationToken>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>bucket</Name><Prefix>{prefix}</Prefix><KeyCount>{len(shown)}</KeyCount><MaxKeys>{limit}</MaxKeys>"
        f"<EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}"
        "</ListBucketResult>"
    ).encode()


def main() -> None:
    _Lister.keys = _Keys(int(sys.argv[1]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Lister)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
