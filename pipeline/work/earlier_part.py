"""The part that a chunk has already, of which only the failed rows are tried again.

Owns what is kept of it and its replacement, by one conditional write: a reader sees the part before or after, and an
image in it once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.errors import StorageError
from pipeline.plan.layout import part_uri
from pipeline.plan.plan import Plan
from pipeline.records import Chunk, Funnel, ImageRow, Status
from pipeline.storage.parts import read_part
from pipeline.storage.store import ObjectInfo, Store


@dataclass(frozen=True)
class EarlierPart:
    """What a chunk has already.

    kept      rows of images that are done
    funnel    what became of their candidates
    versions  of what made the part; if none of its rows is kept, none
    """

    uri: str
    etag: str
    data: bytes
    kept: tuple[ImageRow, ...]
    funnel: Funnel
    versions: tuple[dict[str, str], ...]

    def replace(self, data: bytes, store: Store) -> ObjectInfo | None:
        """The part, which is these bytes now; None if somebody else has replaced it meanwhile.

        raises  StorageError
        """
        if data == self.data:
            return ObjectInfo(self.uri, len(data), self.etag)
        return store.replace(self.uri, data, etag=self.etag)


def earlier_part(plan: Plan, chunk: Chunk, *, out: str, store: Store) -> EarlierPart:
    """raises  NotFoundError if the chunk has none; StorageError if it is none of this plan, or cannot be read"""
    uri = part_uri(out, plan, chunk)
    etag = store.head(uri).etag
    data = store.read(uri, etag=etag)
    part = read_part(data, format=plan.settings.format, name=uri)
    if part.metadata.get("plan_sha256") != plan.sha256:
        raise StorageError(f"{uri} is of another plan: something else wrote it; delete it and repeat the command")
    kept = tuple(row for row in part.rows if row.status is Status.OK)
    made_by = tuple(json.loads(part.metadata.get("versions", "[]"))) if kept else ()
    return EarlierPart(uri, etag, data, kept, Funnel(**json.loads(part.metadata["funnel"])), made_by)
