"""The members of a run as its plan has frozen them: read back piece by piece, each checked against its hash and bounds.

Owns the way from consecutive members of a shard to the pieces that hold them. Keeps the last piece in memory.
"""

from __future__ import annotations

import hashlib

from pipeline.errors import ChangedError, ConfigError
from pipeline.plan.bounds import bounded
from pipeline.plan.layout import members_uri
from pipeline.plan.plan import Plan, PlannedShard
from pipeline.records import Member
from pipeline.storage.members import PIECE_ROWS, read_members
from pipeline.storage.store import Store


class MemberIndex:
    """The member index of one run."""

    def __init__(self, plan: Plan, *, out: str, store: Store) -> None:
        self._plan = plan
        self._out = out
        self._store = store
        self._held = ("", b"")
        """The piece that was read last, by its URI."""

    def read(self, shard_name: str, start: int, stop: int) -> list[Member]:
        """Members [start, stop) of a shard; fewer if its index holds fewer.

        raises  ConfigError if a piece is not the one that was planned, or names what is not in the shard;
                NotFoundError if a piece is gone; StorageError
        """
        planned = self._plan.planned(shard_name)
        last = min(-(-stop // PIECE_ROWS), len(planned.members_sha256))
        members: list[Member] = []
        for number in range(start // PIECE_ROWS, last):
            row_0 = number * PIECE_ROWS
            members += read_members(
                self._piece(planned, number),
                start=max(0, start - row_0),
                stop=min(PIECE_ROWS, stop - row_0),
                first_ordinal=planned.first_ordinal + row_0,
                id_base=self._plan.id_base,
            )
        mixed_lists = self._plan.settings.mixed_lists
        return [bounded(member, planned.shard, mixed_lists=mixed_lists) for member in members]

    def _piece(self, planned: PlannedShard, number: int) -> bytes:
        sha256 = planned.members_sha256[number]
        uri = members_uri(self._out, planned.shard.name, sha256)
        held, data = self._held  # in one step: two chunks of a worker may read side by side
        if held != uri:
            data = self._read_checked(uri, sha256)
            self._held = (uri, data)
        return data

    def _read_checked(self, uri: str, sha256: str) -> bytes:
        """A bit that flips on the way does not flip twice: the same wrong bytes are what lies there."""
        first = self._store.read(uri)
        if hashlib.sha256(first).hexdigest() == sha256:
            return first
        again = self._store.read(uri)
        if hashlib.sha256(again).hexdigest() == sha256:
            return again
        if again == first:
            raise ConfigError(f"{uri} is not the member index that was planned; restore it, or choose another out=")
        raise ChangedError(f"{uri} is not the member index that was planned, and came differently when read again")
