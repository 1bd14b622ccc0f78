"""Is the source still what was planned? Asked when a member cannot be read, before its row becomes final.

Owns the line between an image's own fault, which is a row, and a fault of the source, which stops the chunk or the
shard and makes nothing final. docs/output.md has the table of outcomes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.errors import ConfigError, DeniedError, NotFoundError, SourceError
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import PlannedShard
from pipeline.records import Chunk, ImageRow, Member, Shard, Status
from pipeline.storage.indexing import ShardKind, index_tar
from pipeline.storage.members import read_members
from pipeline.storage.presence import shard_is_there
from pipeline.storage.store import Store

WITNESSES = 16
"""Members of a shard that are looked at when none of a chunk could be read."""
_MD5 = re.compile(r"[0-9a-f]{32}")


class SourceCheck:
    """What one worker has found out about the source of a run. Two chunks may ask at once; the answers are the same."""

    def __init__(self, index: MemberIndex, store: Store) -> None:
        self._index = index
        self._store = store
        self._accepted: dict[tuple[str, str], str] = {}

    def etag_of_changed(self, planned: PlannedShard, member: Member) -> str | None:
        """The identity by which a member can be read after all, though its tar has another one than planned.

        A tar that was copied or touched has another time, and one uploaded anew in parts another ETag, with the same
        bytes in the same places. Equal size and equal members are taken for that; None if the member is no part of a
        tar.
        raises  SourceError if the tar is another one; StorageError
        """
        shard = planned.shard
        if shard.kind not in (ShardKind.TAR, ShardKind.COMPRESSED_TAR):
            return None
        info = self._store.head(shard.uri)
        known = self._accepted.get((shard.uri, info.etag))
        if known is None:
            if self._differs(planned, member.etag, info.etag):
                raise SourceError(
                    f"{shard.uri} is another tar than the one that was planned (planned as {member.etag}, now "
                    f"{info.etag}); put the planned one back and repeat the command, or choose another out=",
                    shard.name,
                )
            known = self._accepted[(shard.uri, info.etag)] = info.etag
        return known

    def _differs(self, planned: PlannedShard, etag: str, now: str) -> bool:
        if _MD5.fullmatch(etag) and _MD5.fullmatch(now):
            return True  # both are hashes of the content
        try:
            pieces = index_tar(planned.shard.uri, self._store).pieces
        except ConfigError:
            return True
        found = [_place(member) for piece in pieces for member in read_members(piece.data)]
        return found != [_place(member) for member in self._members(planned, 0, planned.shard.member_count)]

    def expect_source(self, planned: PlannedShard, chunk: Chunk, rows: Sequence[ImageRow]) -> None:
        """Rows of images that could not be read are final only while others show that the source is in reach.

        raises  SourceError if it is not
        """
        shard, is_list = planned.shard, planned.shard.kind == ShardKind.LIST
        missing = [row for row in rows if row.status is Status.MISSING]
        for row in missing if is_list else missing[:1]:
            if not shard_is_there(shard, row.source, self._store):
                raise _out_of_reach(shard, row)
        unread = missing + [row for row in rows if row.status is Status.CHANGED]
        if unread and not any(row.sha256 for row in rows) and not self._others_are_as_planned(planned, chunk):
            raise SourceError(
                f"{shard.uri}: no image of {chunk.chunk_id} could be read, nor any other of the shard that was tried "
                f"({unread[0].file_name}: {unread[0].error}); bring the source back as it was planned and repeat the "
                "command"
            )

    def _others_are_as_planned(self, planned: PlannedShard, chunk: Chunk) -> bool:
        """Whether one of some members that are not of the chunk, spread over the shard, is there."""
        count = planned.shard.member_count
        numbers = range(0, count, max(1, count // WITNESSES))
        others = (number for number in numbers if not chunk.start <= number < chunk.stop)
        return any(self._is_as_planned(*self._members(planned, number, number + 1)) for number in others)

    def _is_as_planned(self, member: Member) -> bool:
        if member.broken:
            return False
        try:
            info = self._store.head(member.uri)
        except (NotFoundError, DeniedError):
            return False
        return not member.etag or info.etag == member.etag

    def _members(self, planned: PlannedShard, start: int, stop: int) -> list[Member]:
        return self._index.read(planned.shard.name, start, stop)


def concerned(shard: Shard) -> str:
    """The shard's name if all of it is out of reach when an image of it is; "" for a list, which names many places."""
    return "" if shard.kind == ShardKind.LIST else shard.name


def _out_of_reach(shard: Shard, row: ImageRow) -> SourceError:
    what = f"{shard.uri} shows nothing any more, {row.file_name} was to be read from it"
    if shard.kind == ShardKind.LIST:
        what = f"the nearest folder above {row.source} is empty"
    cure = "bring the source back (is a volume not mounted?) and repeat the command"
    return SourceError(f"{what} ({row.error}); {cure}", concerned(shard))


def _place(member: Member) -> tuple[str, int, int, str]:
    return member.key, member.offset, member.length, member.broken
