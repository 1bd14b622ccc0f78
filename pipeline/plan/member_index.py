"""The members of a run as its plan has frozen them: read back piece by piece, each checked against its hash.

Owns the way from consecutive members of a shard to the pieces that hold them. Keeps the last piece in memory.
"""

from __future__ import annotations

import hashlib

from pipeline.errors import ChangedError
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

        raises  NotFoundError, ChangedError if a piece is gone, or is not the one that was planned; StorageError
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
        return members

    def _piece(self, planned: PlannedShard, number: int) -> bytes:
        sha256 = planned.members_sha256[number]
        uri = members_uri(self._out, planned.shard.name, sha256)
        held, data = self._held  # in one step: two chunks of a worker may read side by side
        if held != uri:
            data = self._store.read(uri)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ChangedError(
                    f"{uri} is not the member index that was planned; restore it, or choose another out="
                )
            self._held = (uri, data)
        return data
