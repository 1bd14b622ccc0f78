"""An S3 object that is written part by part, because it is larger than memory or than one put.

Owns the parts and the upload's end: it is completed, or it is aborted and nothing is there. The client, retries and
errors are s3.py's.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (boto3 makes its clients at run time and has no types)

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from pipeline.errors import ConfigError, MaskmillError
from pipeline.storage.s3_errors import status_of

PART_BYTES = 32 * 2**20
"""All parts but the last one have this size, as some stores want it. S3 takes none below 5 MiB."""
_MOST_PARTS = 10_000

Call = Callable[[Callable[[], Any]], Any]
"""Makes a request, again if need be, and turns what it raises into one of pipeline.errors."""


def in_parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in parts of PART_BYTES; nothing for no bytes."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) > PART_BYTES:
            yield bytes(held[:PART_BYTES])
            del held[:PART_BYTES]
    if held:
        yield bytes(held)


class Upload:
    """One multipart upload to `where`, the Bucket and Key of a request."""

    def __init__(self, where: dict[str, str], *, client: Callable[[], Any], call: Call, with_md5: bool) -> None:
        self._where, self._client, self._call, self._with_md5 = where, client, call, with_md5
        self._token = uuid.uuid4().hex

    def put(self, parts: Iterator[bytes]) -> tuple[int, str]:
        """The size and the etag of the new object."""
        metadata = {"writer": self._token}
        begun = self._call(lambda: self._client().create_multipart_upload(**self._where, Metadata=metadata))
        which = {**self._where, "UploadId": begun["UploadId"]}
        try:
            size, sent = 0, list[dict[str, Any]]()
            for number, part in enumerate(parts, start=1):
                if number > _MOST_PARTS:
                    most = _MOST_PARTS * PART_BYTES // 2**30
                    raise ConfigError(
                        f"{self._where['Key']} would have more than {most} GiB; export fewer images to it"
                    )
                sent.append(self._send(which, number, part))
                size += len(part)
            etag = self._call(lambda: self._complete(which, sent))
        except BaseException:
            with suppress(MaskmillError):
                self._call(lambda: self._client().abort_multipart_upload(**which))
            raise
        return size, etag

    def _send(self, which: dict[str, str], number: int, part: bytes) -> dict[str, Any]:
        request: dict[str, Any] = {**which, "PartNumber": number, "Body": part}
        if self._with_md5:
            request["ContentMD5"] = base64.b64encode(hashlib.md5(part, usedforsecurity=False).digest()).decode()
        answer = self._call(lambda: self._client().upload_part(**request))
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _complete(self, which: dict[str, str], sent: list[dict[str, Any]]) -> str:
        """If the upload is not known any more and the object has its token, an earlier answer was lost."""
        try:
            answer = self._client().complete_multipart_upload(**which, MultipartUpload={"Parts": sent})
        except ClientError as error:
            if status_of(error) != 404:
                raise
            answer = self._client().head_object(**self._where)
            names = {name.lower(): value for name, value in answer["Metadata"].items()}
            if names.get("writer") != self._token:
                raise
        return str(answer["ETag"]).strip('"')
