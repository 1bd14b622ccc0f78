"""The frozen members, read back: across the pieces of an index, and no more of them than are there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.plan.layout import members_uri
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard
from pipeline.records import Shard
from pipeline.settings import Settings
from pipeline.storage.members import PIECE_ROWS, FoundMember, IndexBuilder
from pipeline.storage.store import Store

FIRST_ORDINAL = 100
ID_BASE = 7
MEMBERS = PIECE_ROWS + 10


@pytest.fixture
def index(tmp_path: Path, store: Store) -> MemberIndex:
    """Of one shard, whose members are two pieces: a full one, and ten."""
    builder = IndexBuilder()
    for number in range(MEMBERS):
        builder.add(FoundMember(f"{number}.png", "/s", number, 1, ""))
    pieces = builder.finish()
    hashes = tuple(hashlib.sha256(piece.data).hexdigest() for piece in pieces)
    for sha256, piece in zip(hashes, pieces, strict=True):
        store.put_if_absent(members_uri(str(tmp_path), "a", sha256), piece.data)
    shard = Shard(name="a", uri="/s", kind="folder", member_count=MEMBERS, ignored_count=0)
    settings = OutputSettings.of(Settings(source="/s", out=str(tmp_path)), weights_sha256="w")
    plan = Plan(settings=settings, shards=(PlannedShard(shard, FIRST_ORDINAL, hashes),), id_base=ID_BASE)
    return MemberIndex(plan, out=str(tmp_path), store=store)


def test_a_chunk_may_lie_in_two_pieces_of_the_index(index: MemberIndex):
    """Chunks are cut without regard to pieces: keys, places, ordinals and ids run through."""
    for start, stop in [
        (PIECE_ROWS - 3, PIECE_ROWS + 4),
        (PIECE_ROWS - 3, PIECE_ROWS),
        (PIECE_ROWS, PIECE_ROWS + 4),
        (0, 2),
    ]:
        members = index.read("a", start, stop)
        assert [member.key for member in members] == [f"{number}.png" for number in range(start, stop)]
        assert [member.offset for member in members] == list(range(start, stop))
        assert [member.ordinal for member in members] == list(range(FIRST_ORDINAL + start, FIRST_ORDINAL + stop))
        assert [member.image_id for member in members] == [ID_BASE + member.ordinal for member in members]


def test_beyond_the_last_member_there_is_none(index: MemberIndex):
    """A plan that says more than its index is found out by the number of members."""
    assert [member.key for member in index.read("a", MEMBERS - 1, MEMBERS + 5)] == [f"{MEMBERS - 1}.png"]
