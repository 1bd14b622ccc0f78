"""The way into storage: `connect` returns one store for all URIs, on local disk and on S3.

Owns the choice of the backend, and the store of a dry run, which forgets what is written.
store.py states the promises; local.py and s3.py keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, BinaryIO

from pipeline.errors import ConfigError
from pipeline.settings import StoreSettings
from pipeline.storage.local import LocalStore
from pipeline.storage.s3 import S3Store
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import is_s3, split_s3


def connect(settings: StoreSettings, *, out: str = "", dry: bool = False) -> Store:
    """The store for all URIs. It pickles as its settings, and connects on first use.

    out     what a run writes to: requests to its bucket are signed even with `store.anonymous`
    dry     what is written is forgotten
    raises  ConfigError if the endpoint carries credentials
    """
    problem = endpoint_problem(settings.endpoint_url)
    if problem:
        raise ConfigError(problem)
    return DryStore(settings, out) if dry else RoutedStore(settings, out)


def endpoint_problem(endpoint_url: str | None) -> str:
    """What is wrong with credentials in an address, which stands in errors and in commands; "" if there are none."""
    if endpoint_url is None or not {"@", "?"} & set(endpoint_url):
        return ""
    return (
        "store.endpoint_url carries a user, a password or a query; write https://host:port alone, and give credentials "
        "by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
    )


class RoutedStore:
    """Sends each call to the backend that its URI names."""

    def __init__(self, settings: StoreSettings, out: str = "") -> None:
        self._settings = settings
        self._out = out
        self._local = LocalStore()
        self._s3 = S3Store(settings, split_s3(out)[0] if is_s3(out) else "")

    def __reduce__(self) -> tuple[type[RoutedStore], tuple[Any, ...]]:
        return type(self), (self._settings, self._out)

    def head(self, uri: str) -> ObjectInfo:
        """See `Store`."""
        return self._backend(uri).head(uri)

    def list(
        self, uri: str, *, pattern: Sequence[str] = (), unreadable: Callable[[str], object] | None = None
    ) -> Iterator[ObjectInfo]:
        """See `Store`."""
        return self._backend(uri).list(uri, pattern=pattern, unreadable=unreadable)

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        """See `Store`."""
        return self._backend(uri).read(uri, offset=offset, length=length, etag=etag, limit=limit)

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """See `Store`."""
        return self._backend(uri).open(uri, etag=etag)

    def modified(self, uri: str) -> datetime:
        """See `Store`."""
        return self._backend(uri).modified(uri)

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        """See `Store`."""
        return self._backend(uri).put_if_absent(uri, data)

    def replace(self, uri: str, data: bytes, *, etag: str) -> ObjectInfo | None:
        """See `Store`."""
        return self._backend(uri).replace(uri, data, etag=etag)

    def put_stream(self, uri: str, pieces: Iterable[bytes]) -> ObjectInfo:
        """See `Store`."""
        return self._backend(uri).put_stream(uri, pieces)

    def delete(self, uri: str) -> None:
        """See `Store`."""
        self._backend(uri).delete(uri)

    def _backend(self, uri: str) -> Store:
        return self._s3 if is_s3(uri) else self._local


class DryStore(RoutedStore):
    """Reads as any other; answers whoever writes as if they had been the first, and changes nothing."""

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        """See `Store`."""
        return ObjectInfo(uri, len(data), "")

    def replace(self, uri: str, data: bytes, *, etag: str) -> ObjectInfo | None:
        """See `Store`."""
        return ObjectInfo(uri, len(data), "")

    def put_stream(self, uri: str, pieces: Iterable[bytes]) -> ObjectInfo:
        """See `Store`."""
        return ObjectInfo(uri, sum(map(len, pieces)), "")

    def delete(self, uri: str) -> None:
        """See `Store`."""
