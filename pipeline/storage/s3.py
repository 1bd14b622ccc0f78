"""A store on S3, or on a service with S3's interface, through boto3.

Owns conditional writes, retries and reads that resume where the connection broke. boto3's own retries are off, so that
only one place retries (retry.py). It knows the deadline, and it knows that a create whose answer was lost finds its own
object.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (boto3 makes its clients at run time and has no types)

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from typing import Any, BinaryIO, TypeVar, cast

from botocore.exceptions import ClientError

from pipeline.errors import ConfigError, NotFoundError, StorageError
from pipeline.settings import StoreSettings
from pipeline.storage.globs import literal_head
from pipeline.storage.retry import Patience, Transient
from pipeline.storage.s3_errors import making_client, status_of, translated
from pipeline.storage.s3_identity import is_unsigned, set_identity
from pipeline.storage.s3_listing import list_keys, take_contents
from pipeline.storage.s3_multipart import Upload, in_parts
from pipeline.storage.s3_stream import ResumingBody
from pipeline.storage.store import ObjectInfo, check_size
from pipeline.storage.uris import absolute, split_s3, split_s3_object

T = TypeVar("T")

_LARGEST_PUT = 5 * 2**30
_BUFFER = 1 << 20


class S3Store:
    """See `Store`. Pickles as its settings; each process builds its own client, on first use."""

    def __init__(self, settings: StoreSettings, signed_bucket: str = "") -> None:
        self._settings = settings
        self._signed_bucket = signed_bucket
        self._patience = Patience(settings.retry_deadline_s)
        self._lock = threading.Lock()
        self._client: Any = None
        self._client_pid = 0

    def __reduce__(self) -> tuple[type[S3Store], tuple[StoreSettings, str]]:
        return S3Store, (self._settings, self._signed_bucket)

    def head(self, uri: str) -> ObjectInfo:
        """See `Store`."""
        where = _where(uri)
        answer = self._call(uri, lambda: self._connected().head_object(**where))
        return ObjectInfo(uri, int(answer["ContentLength"]), _bare(answer["ETag"]))

    def list(
        self, uri: str, *, pattern: Sequence[str] = (), unreadable: Callable[[str], object] | None = None
    ) -> Iterator[ObjectInfo]:
        """See `Store`; keys that end in a slash (folder markers) are left out."""
        bucket, key = split_s3(absolute(uri))
        prefix = (f"{key}/" if key else "") + (literal_head(pattern[0]) if pattern else "")

        def list_page(**query: Any) -> Any:
            return self._call(uri, lambda: self._connected().list_objects_v2(Bucket=bucket, **query))

        for name, size, etag in list_keys(list_page, prefix):
            if not name.endswith("/"):
                yield ObjectInfo(f"s3://{bucket}/{name}", size, etag)

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        """See `Store`. Raises ChangedError also if the object ends before the range does."""
        if length == 0:
            return b""
        stop = None if length is None else offset + length
        with self._body(uri, etag, offset=offset, stop=stop) as body:
            if limit is not None:
                check_size(uri, body.find_stop() - offset, limit)
            return body.readall()

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """See `Store`. Without `etag` the etag of the first answer is used, so that a resumed read is of one object."""
        return cast("BinaryIO", io.BufferedReader(self._body(uri, etag), _BUFFER))

    def modified(self, uri: str) -> datetime:
        """See `Store`."""
        where = _where(uri)
        answer = self._call(uri, lambda: self._connected().head_object(**where))
        return answer["LastModified"].astimezone(UTC)

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        """See `Store`. If the store refuses and the object carries this call's token, an earlier try created it and its
        answer was lost: then this call has won."""
        return self._put(uri, data, IfNoneMatch="*")

    def replace(self, uri: str, data: bytes, *, etag: str) -> ObjectInfo | None:
        """See `Store`. A store that does not know If-Match replaces whatever is there."""
        try:
            return self._put(uri, data, IfMatch=f'"{etag}"')
        except NotFoundError:
            return None

    def put_stream(self, uri: str, pieces: Iterable[bytes]) -> ObjectInfo:
        """See `Store`. What fits one part is one put; more is a multipart upload, which is there when it is whole."""
        parts = in_parts(pieces)
        first, second = next(parts, b""), next(parts, None)
        if second is None:
            put = self._put(uri, first)
            if put is None:
                raise StorageError(f"{uri}: the store refused an unconditional write; repeat the command")
            return put
        upload = Upload(
            _where(uri),
            client=self._connected,
            call=lambda act: self._call(uri, act),
            with_md5=self._settings.endpoint_url is not None,
        )
        return ObjectInfo(uri, *upload.put(chain((first, second), parts)))

    def _put(self, uri: str, data: bytes, **condition: str) -> ObjectInfo | None:
        """The object if this call has put it; None if another writer's object does not meet the condition."""
        if len(data) > _LARGEST_PUT:
            raise ConfigError(f"{uri}: {len(data):,} bytes do not fit one put (5 GiB); lower run.images_per_chunk")
        where, token = _where(uri), uuid.uuid4().hex
        request: dict[str, Any] = {
            **where,
            **condition,
            "Body": data,
            "Metadata": {"writer": token, "sha256": hashlib.sha256(data).hexdigest()},
        }
        if self._settings.endpoint_url is not None:
            # boto3 sends no CRC to these stores (some refuse it), so the older MD5 digest guards the upload.
            digest = hashlib.md5(data, usedforsecurity=False).digest()
            request["ContentMD5"] = base64.b64encode(digest).decode()

        def put() -> ObjectInfo | None:
            try:
                answer = self._connected().put_object(**request)
            except ClientError as error:
                if status_of(error) != 412:
                    raise
                answer = self._refuser(where)
                if _writer(answer) != token:
                    return None
            return ObjectInfo(uri, len(data), _bare(answer.get("ETag", "")))

        return self._call(uri, put)

    def delete(self, uri: str) -> None:
        """See `Store`."""
        where = _where(uri)
        self._call(uri, lambda: self._connected().delete_object(**where))

    def _refuser(self, where: dict[str, str]) -> Any:
        """The head of the object that is there."""
        try:
            return self._connected().head_object(**where)
        except ClientError as error:
            if status_of(error) == 404:
                raise Transient("the object was there and is gone") from error
            raise

    def _body(self, uri: str, etag: str, *, offset: int = 0, stop: int | None = None) -> ResumingBody:
        where = _where(uri)

        def get(**options: str) -> Any:
            with self._translated(uri):
                return self._connected().get_object(**where, **options)

        return ResumingBody(uri, get, self._patience, etag=etag, start=offset, stop=stop)

    def _call(self, uri: str, act: Callable[[], T]) -> T:
        def translated_act() -> T:
            with self._translated(uri):
                return act()

        return self._patience.insist(uri, translated_act)

    def _translated(self, uri: str) -> AbstractContextManager[None]:
        unsigned = is_unsigned(self._settings, split_s3(uri)[0], signed_bucket=self._signed_bucket)
        return translated(uri, unsigned=unsigned)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None or self._client_pid != os.getpid():
                with making_client():
                    self._client, self._client_pid = _new_client(self._settings), os.getpid()
                    set_identity(self._client, self._settings, signed_bucket=self._signed_bucket)
            return self._client


def _new_client(settings: StoreSettings) -> Any:
    # Imported here because it takes a third of a second, which runs on local disk need not spend.
    import boto3
    import botocore.session
    from botocore.config import Config

    compatible = settings.endpoint_url is not None
    # On AWS boto3's default holds, or what the environment says. Several other stores refuse that default's checksums.
    checksums = "when_required" if compatible else None
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=10,
        read_timeout=settings.answer_timeout_s,
        max_pool_connections=64,
        tcp_keepalive=True,
        signature_version="s3v4",
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        s3={"addressing_style": "path"} if compatible else None,
    )
    core = botocore.session.get_session()
    loader = _model_loader(core.get_config_variable("data_path"))
    core.register_component("data_loader", loader)
    session = boto3.session.Session(botocore_session=core)
    # boto3 adds its own folder for every session, where one loader for all has it since the first.
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)
    client = session.client("s3", endpoint_url=settings.endpoint_url, region_name=settings.region, config=config)
    # Registered first and for all of S3, because botocore's own handler for S3 parses every body once more.
    client.meta.events.register_first("before-parse.s3", take_contents)
    return client


@cache
def _model_loader(data_path: str | None) -> Any:
    """One for all clients of a process: it keeps the descriptions of S3 that it has read, a tenth of a second each."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


def _where(uri: str) -> dict[str, str]:
    bucket, key = split_s3_object(uri)
    return {"Bucket": bucket, "Key": key}


def _writer(head: Any) -> str:
    """The token in an object's metadata; some servers capitalise its name."""
    return next((value for name, value in head["Metadata"].items() if name.lower() == "writer"), "")


def _bare(etag: str) -> str:
    return etag.strip('"')
