"""Listing a prefix of any size: page after page if it is small, many pages at once if it is large.

Owns the cutting of a large prefix into ranges. This needs no knowledge of the keys: it asks the store with which
characters they go on. Ranges are returned in byte order, so the result is that of one long listing. Makes its requests
through the `ListPage` that it is given, which retries by itself.
"""

from __future__ import annotations

import re
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote_plus

FIRST_PAGES = 16
"""Pages read one after the other before the rest is cut into ranges."""
RANGE_PAGES = 128
"""Pages of a range after which the rest of the range is cut again. Together with `THREADS` this bounds the memory."""
RANGES = 32
"""Ranges to cut a prefix into, at least."""
THREADS = 16
_LONGEST_KEY = 1024
_HIGH = "\ufffd"
"""Sorts after nearly every character that a key goes on with. A key that sorts after it is noticed, and its range is
not cut."""


_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY, _SIZE, _ETAG = (re.compile(b"<%s>([^<]*)</%s>" % (name, name)) for name in (b"Key", b"Size", b"ETag"))
_URL_ENCODED = b"<EncodingType>url</EncodingType>"

Found = tuple[str, int, str]
"""Key, size, etag. A plain tuple, because there are millions of them."""


class ListPage(Protocol):
    """Calls ListObjectsV2 with these parameters and translates its errors."""

    def __call__(self, **query: Any) -> Any: ...


def take_contents(
    operation_model: Any, response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """For botocore's event `before-parse`: reads the keys of a page, for which botocore itself takes 60 us a key.

    It reads only pages that are written as S3 writes them. Any other page is left to botocore as a whole.
    """
    if operation_model.name != "ListObjectsV2" or response_dict["status_code"] != 200:
        return
    body: bytes = response_dict["body"]
    keys, sizes, etags = _KEY.findall(body), _SIZE.findall(body), _ETAG.findall(body.replace(b"&quot;", b""))
    usual = len(keys) == len(sizes) == len(etags) == body.count(b"<Contents>")
    if not keys or not usual or b"&" in b"".join(keys + etags):
        return
    names = b"\0".join(keys).decode().split("\0")
    if _URL_ENCODED in body:
        names = [unquote_plus(name) if "%" in name or "+" in name else name for name in names]
    customized_response_dict["Contents"] = [
        {"Key": name, "Size": int(size), "ETag": etag.decode()}
        for name, size, etag in zip(names, sizes, etags, strict=True)
    ]
    response_dict["body"] = _CONTENTS.sub(b"", body).replace(_URL_ENCODED, b"")


def list_keys(list_page: ListPage, prefix: str) -> Iterator[Found]:
    """Every key that begins with `prefix`, in byte order."""
    rest = ""
    for page in _pages(list_page, _Range(prefix), FIRST_PAGES):
        yield from page.unpacked()
        rest = page.rest
    if rest:
        with ThreadPoolExecutor(THREADS) as pool:
            many = _ManyAtOnce(list_page, pool)
            try:
                yield from many.keys(_Range(prefix, rest))
            finally:
                many.is_over = True


@dataclass(frozen=True, slots=True)
class _Range:
    """Keys that begin with `prefix` and come after `after`; or the one key that is `prefix`."""

    prefix: str
    after: str = ""
    is_one_key: bool = False


@dataclass(frozen=True, slots=True)
class _Page:
    """One page, packed. NUL separates the keys, because XML cannot carry a key with a NUL. `rest` is the key after
    which the next page begins; "" on the last page."""

    keys: str
    etags: str
    sizes: array[int]
    rest: str

    @classmethod
    def of(cls, answer: Any, *, is_last: bool) -> _Page:
        entries = answer.get("Contents", [])
        return cls(
            rest="" if is_last else entries[-1]["Key"],
            keys="\0".join([entry["Key"] for entry in entries]),
            etags="\0".join([entry["ETag"].strip('"') for entry in entries]),
            sizes=array("q", [entry["Size"] for entry in entries]),
        )

    def unpacked(self) -> Iterator[Found]:
        if self.sizes:
            yield from zip(self.keys.split("\0"), self.sizes, self.etags.split("\0"), strict=True)


def _pages(list_page: ListPage, within: _Range, count: int) -> Iterator[_Page]:
    """At most `count` pages."""
    query = _query(within)
    for _ in range(count):
        answer = list_page(**query)
        is_last = within.is_one_key or not answer.get("IsTruncated")
        yield _Page.of(answer, is_last=is_last)
        if is_last:
            return
        query["ContinuationToken"] = answer["NextContinuationToken"]


def _query(within: _Range) -> dict[str, Any]:
    query: dict[str, Any] = {"Prefix": within.prefix}
    if within.after:
        query["StartAfter"] = within.after
    if within.is_one_key:
        query["MaxKeys"] = 1
    return query


class _ManyAtOnce:
    """Lists a large range in smaller ones, several at a time."""

    def __init__(self, list_page: ListPage, pool: ThreadPoolExecutor) -> None:
        self._list_page = list_page
        self._pool = pool
        self.is_over = False
        """Set when the caller wants no more keys, so that reads that still run end."""

    def keys(self, within: _Range) -> Iterator[Found]:
        """The keys in order. At most `THREADS` ranges are read ahead."""
        waiting = deque(self._cut(within))
        running: deque[tuple[_Range, Future[list[_Page]]]] = deque()
        while waiting or running:
            while waiting and len(running) < THREADS:
                running.append((waiting[0], self._pool.submit(self._read, waiting.popleft())))
            part, reading = running.popleft()
            rest = ""
            for page in reading.result():
                yield from page.unpacked()
                rest = page.rest
            if rest:
                yield from self.keys(_Range(part.prefix, rest))

    def _read(self, within: _Range) -> list[_Page]:
        pages: list[_Page] = []
        for page in _pages(self._list_page, within, RANGE_PAGES):
            if self.is_over:
                break
            pages.append(page)
        return pages

    def _cut(self, within: _Range) -> list[_Range]:
        """Ranges that together are `within`, in order; at least `RANGES` of them if the keys allow."""
        ranges = [within]
        while 0 < len(ranges) < RANGES:
            smaller = [part for parts in self._pool.map(self._split, ranges) for part in parts]
            if smaller == ranges:
                break
            ranges = smaller
        return ranges

    def _split(self, within: _Range) -> list[_Range]:
        """The range cut by the character that follows its prefix; uncut if that character cannot be found out."""
        prefix = within.prefix
        if within.is_one_key or len(prefix) >= _LONGEST_KEY:
            return [within]
        parts: list[_Range] = []
        first = self._first(within)
        while first:
            if first == prefix:
                parts.append(_Range(prefix, is_one_key=True))
                first = self._first(_Range(prefix, first))
                continue
            longer = first[: len(prefix) + 1]
            if not longer.startswith(prefix) or (parts and longer <= parts[-1].prefix):
                return [within]
            parts.append(_Range(longer, within.after if within.after.startswith(longer) else ""))
            first = self._first(_Range(prefix, longer + _HIGH))
        return parts

    def _first(self, within: _Range) -> str:
        """The first key of a range; "" if the range is empty."""
        contents = self._list_page(**_query(within) | {"MaxKeys": 1}).get("Contents", [])
        return contents[0]["Key"] if contents else ""
