"""The driver's book-keeping."""

from __future__ import annotations

import pytest

from pipeline.records import ChunkReport, Funnel, Shard
from pipeline.run.ledger import Ledger
from pipeline.run.plan import Plan, PlannedShard, Shape
from pipeline.settings import Settings


@pytest.fixture
def plan() -> Plan:
    """Seven images in four chunks of two."""
    settings = Settings(source="s", out="o")
    shape = Shape.of(settings, weights_sha256="w")
    shape = Shape(**{**{name: getattr(shape, name) for name in Shape.__dataclass_fields__}, "images_per_chunk": 2})
    shard = Shard(name="a", uri="/a", kind="folder", member_count=7, ignored_count=0)
    return Plan(shape=shape, shards=(PlannedShard(shard=shard, first_ordinal=0, members_sha256="m"),))


def ids(ledger: Ledger) -> list[str]:
    return [chunk.chunk_id for chunk in ledger.waiting]


def report(chunk_id: str) -> ChunkReport:
    return ChunkReport(chunk_id=chunk_id, won=True, images={"ok": 2}, masks=0, funnel=Funnel())


def test_what_is_committed_is_not_waiting(plan: Plan):
    """Resume is the plan minus the listing."""
    ledger = Ledger.open(plan, committed={"a-00001", "a-00003"}, attempts_allowed=3, from_the_start=True)
    assert ids(ledger) == ["a-00000", "a-00002"]
    assert ledger.images_committed == 3


def test_another_driver_begins_elsewhere_with_the_same_chunks(plan: Plan):
    """Two drivers in step would do every chunk twice."""
    starts = {ids(Ledger.open(plan, committed=(), attempts_allowed=3, from_the_start=False))[0] for _ in range(200)}
    assert starts == {"a-00000", "a-00001", "a-00002", "a-00003"}


def test_a_failed_chunk_waits_again_at_the_end_until_its_attempts_are_used(plan: Plan):
    """One place retries; a chunk that fails for ever does not stop the others."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=2, from_the_start=True)
    chunk = ledger.take()
    assert not ledger.is_suspect(chunk)
    assert ledger.fail(chunk, "why")
    assert ids(ledger)[-1] == chunk.chunk_id
    assert ledger.is_suspect(chunk)
    ledger.waiting.remove(chunk)
    assert not ledger.fail(chunk, "again")
    assert ledger.given_up["a-00000"].why == "again"
    assert not ledger.is_complete


def test_a_chunk_given_up_here_and_committed_by_another_driver_counts(plan: Plan):
    """The store decides what is done, not this process's memory."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=1, from_the_start=True)
    ledger.fail(ledger.take(), "why")
    for chunk in list(ledger.waiting):
        ledger.finish(ledger.take(), report(chunk.chunk_id))
    ledger.note_committed({"a-00000"})
    assert ledger.is_complete
    assert not ledger.given_up
    assert ledger.images_committed == 7


def test_a_chunk_that_another_driver_committed_while_it_was_out_is_counted_once(plan: Plan):
    """Both the listing and the worker's report say so."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=3, from_the_start=True)
    chunk = ledger.take()
    ledger.note_committed({chunk.chunk_id})
    ledger.finish(chunk, report(chunk.chunk_id))
    ledger.note_committed({chunk.chunk_id})
    assert ledger.images_committed == 2
