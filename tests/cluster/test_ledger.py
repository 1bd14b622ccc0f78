"""The driver's book-keeping."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.cluster.ledger import DEATHS_TO_NAME, LOSSES_EXCUSED, Ledger, Verdict
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard
from pipeline.records import Attempt, ChunkReport, Funnel, JournalEntry, Shard
from pipeline.settings import Settings


@pytest.fixture
def plan() -> Plan:
    """Seven images in four chunks of two."""
    settings = Settings(source="s", out="o")
    output_settings = OutputSettings.of(settings, weights_sha256="w")
    output_settings = replace(output_settings, images_per_chunk=2)
    shard = Shard(name="a", uri="/a", kind="folder", member_count=7, ignored_count=0)
    return Plan(settings=output_settings, shards=(PlannedShard(shard=shard, first_ordinal=0, members_sha256=("m",)),))


def ids(ledger: Ledger) -> list[str]:
    return [chunk.chunk_id for chunk in ledger.waiting]


def report(chunk_id: str) -> ChunkReport:
    return ChunkReport(chunk_id=chunk_id, won=True, images={"ok": 2}, masks=0, funnel=Funnel())


def test_the_share_of_failed_images_is_judged_once_there_are_enough(plan: Plan):
    """One bad image at the beginning is no hundred percent; and as many as are allowed are allowed."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=3, from_the_start=True)
    ledger.statuses.update(unreadable=99)
    assert not ledger.failed_more_than(0.0)
    ledger.statuses.update(ok=101)
    assert ledger.failed_more_than(0.49)
    assert not ledger.failed_more_than(0.495)


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
    attempt = ledger.take()
    assert not attempt.careful
    assert ledger.blame(attempt, None, "why") is Verdict.AGAIN
    assert ids(ledger)[-1] == attempt.chunk.chunk_id
    ledger.waiting.rotate(1)
    again = ledger.take()
    assert again.chunk == attempt.chunk
    assert again.careful
    assert again.key != attempt.key
    assert ledger.blame(again, None, "again") is Verdict.GIVEN_UP
    assert ledger.given_up["a-00000"].why == "again"
    assert not ledger.is_complete


def test_a_chunk_given_up_here_and_committed_by_another_driver_counts(plan: Plan):
    """The store decides what is done, not this process's memory."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=1, from_the_start=True)
    ledger.blame(ledger.take(), None, "why")
    while ledger.waiting:
        chunk = ledger.take().chunk
        ledger.finish(chunk, report(chunk.chunk_id))
    ledger.note_committed({"a-00000"})
    assert ledger.is_complete
    assert not ledger.given_up
    assert ledger.images_committed == 7


def test_a_chunk_that_another_driver_committed_while_it_was_out_is_counted_once(plan: Plan):
    """Both the listing and the worker's report say so."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=3, from_the_start=True)
    chunk = ledger.take().chunk
    ledger.note_committed({chunk.chunk_id})
    ledger.finish(chunk, report(chunk.chunk_id))
    ledger.note_committed({chunk.chunk_id})
    assert ledger.images_committed == 2


def test_an_image_is_named_by_the_third_attempt_that_ends_at_it_and_only_by_a_careful_one(plan: Plan):
    """Two deaths may be a machine's or somebody's doing; an innocent image must not lose its masks for them."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=3, from_the_start=True)
    at_one = JournalEntry(ordinal=1, images=2, age_s=0.0)
    verdicts = [ledger.blame(ledger.take(), at_one, "died")]
    for ordinal in (1, 0, 1):
        ledger.waiting.rotate(1)
        attempt = ledger.take()
        assert attempt.careful
        assert not attempt.crashed
        verdicts.append(ledger.blame(attempt, JournalEntry(ordinal, 1, 0.0), "its worker died"))
    assert verdicts == [Verdict.AGAIN] * 3 + [Verdict.NAMED]
    ledger.waiting.rotate(1)
    assert ledger.take().crashed == {1: "3 attempts at this image failed: its worker died"}
    assert not ledger.given_up, "what an image did is not counted against its chunk"


def test_images_named_before_anything_was_finished_are_suspected_of_nothing_in_the_end(plan: Plan):
    """A machine that is too small, or a driver that is broken, kills at every image; crashed rows would be for good."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=3, from_the_start=True)
    seen: list[bool] = []
    for ordinal in range(5):
        for _ in range(3):
            ledger.blame(Attempt(ledger.waiting[0], careful=True), JournalEntry(ordinal, 1, 0.0), "died")
        seen.append(ledger.nothing_works)
    assert seen == [False] * 4 + [True]
    ledger.finish(ledger.take().chunk, report("a-00000"))
    assert not ledger.nothing_works


def test_an_attempt_that_read_ahead_names_nobody_however_often_it_ends_there(plan: Plan):
    """The mark says which image was computed; another one may have been decoded beside it."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=9, from_the_start=True)
    attempt = ledger.take()
    verdicts = {ledger.blame(attempt, JournalEntry(ordinal=1, images=2, age_s=0.0), "died") for _ in range(4)}
    assert verdicts == {Verdict.AGAIN}
    assert not any(ledger.crashed.values())


def test_lost_machines_are_excused_until_one_chunk_loses_too_many(plan: Plan):
    """Preemption is not the chunk's doing; but an image that takes whole machines with it must not go on for ever."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=3, from_the_start=True)
    at_one = JournalEntry(ordinal=1, images=2, age_s=0.0)
    verdicts = [ledger.excuse(ledger.take(), at_one, "its node was lost") for _ in range(4)]
    assert verdicts == [Verdict.EXCUSED] * 3 + [Verdict.AGAIN]
    ledger.waiting.rotate(1)
    assert ledger.take().careful


def test_a_chunk_that_met_the_end_of_memory_runs_alone_next_time_and_is_not_blamed(plan: Plan):
    """Alone and with nothing read ahead it takes the least memory there is."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=1, from_the_start=True)
    attempt = ledger.take()
    assert ledger.spare(attempt, JournalEntry(ordinal=1, images=2, age_s=0.0), "no memory") is Verdict.EXCUSED
    again = ledger.take()
    assert (again.chunk, again.careful) == (attempt.chunk, True)
    assert not ledger.deaths


def test_what_was_put_back_is_next_and_not_suspect(plan: Plan):
    """A lost machine says nothing of the chunks that were on it."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=1, from_the_start=True)
    attempt = ledger.take()
    ledger.put_back(attempt.chunk)
    again = ledger.take()
    assert again.chunk == attempt.chunk
    assert not again.careful


def test_what_a_bad_machine_did_to_a_chunk_is_taken_back(plan: Plan):
    """No attempt, no suspicion, no image left out, and not given up."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=1, from_the_start=True)
    at_one = JournalEntry(ordinal=1, images=2, age_s=0.0)
    attempts: list[Attempt] = []
    verdicts: list[Verdict] = []
    for _ in range(DEATHS_TO_NAME):
        attempts.append(replace(ledger.take(), careful=True))
        verdicts.append(ledger.blame(attempts[-1], at_one, "died"))
        ledger.waiting.rotate(1)
    assert verdicts[-1] is Verdict.NAMED
    attempts.append(ledger.take())
    assert ledger.refuse(attempts[-1], "refused") is Verdict.GIVEN_UP
    ledger.take_back(attempts)
    ledger.take_back(attempts)
    again = ledger.take()
    assert (again.chunk, again.careful, again.crashed) == (attempts[0].chunk, False, {})
    assert not ledger.given_up
    assert not +ledger.failures
    assert not +ledger.deaths


def test_what_other_machines_did_to_the_chunk_stands(plan: Plan):
    """One of its two failures was elsewhere."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=3, from_the_start=True)
    attempts = [ledger.take()]
    ledger.blame(attempts[0], JournalEntry(ordinal=1, images=2, age_s=0.0), "died")
    ledger.waiting.rotate(1)
    attempts.append(ledger.take())
    ledger.blame(attempts[1], JournalEntry(ordinal=1, images=2, age_s=0.0), "died")
    ledger.take_back(attempts[:1])
    assert ledger.deaths[1] == 1
    assert ledger.suspects == {"a-00000"}


def test_a_chunk_whose_machines_are_lost_after_its_workers_is_excused_three_times(plan: Plan):
    """One image that takes its worker along, and then the machine, must not go on for ever."""
    ledger = Ledger.open(plan, committed=(), attempts_allowed=9, from_the_start=True)
    failures: list[int] = []
    for _ in range(LOSSES_EXCUSED + 2):
        attempt = ledger.take()
        ledger.blame(attempt, None, "died")
        ledger.take_back([attempt], lost=True)
        failures.append(ledger.failures["a-00000"])
        ledger.waiting.rotate(1)
    assert failures == [0] * LOSSES_EXCUSED + [1, 2]
