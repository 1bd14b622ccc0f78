"""How a command ended: its exit code, and what the summary says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.output.manifest import CountedPart, Manifest
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard
from pipeline.records import Chunk, ChunkReport, Ending, Funnel, GivenUp, Ignored, Shard, Stage
from pipeline.run.outcome import Outcome
from pipeline.run.report import SHOWN_KINDS, summary
from pipeline.settings import RunSettings, Settings

SETTINGS = Settings(source="s", out="/o", run=RunSettings(images_per_chunk=4))
SHARD = Shard(name="a", uri="/a", kind="folder", member_count=8, ignored_count=0)
PLAN = Plan(OutputSettings.of(SETTINGS, weights_sha256="w"), (PlannedShard(SHARD, 0, ("m",)),))
REPORT = ChunkReport(
    chunk_id="a-00000",
    won=True,
    images={"ok": 3, "unreadable": 1},
    masks=30,
    funnel=Funnel(candidates=100, low_stability=70, kept=30),
    seconds={Stage.READ: 1.0, Stage.COMPUTE: 6.0},
)
UNFINISHED = Outcome(
    out="/o", plan=PLAN, manifest=None, found_chunks=0, committed_chunks=1, reports=(REPORT,), work_s=8.0, worked_s=12.0
)


def test_a_run_that_is_not_finished_says_what_is_there_and_how_to_go_on():
    """Of its own work it knows the images; masks are shared out over those that have any."""
    said = summary(UNFINISHED)
    assert UNFINISHED.exit_code == 3
    assert "not finished, 1 of 2 chunks committed, 1 left" in said
    assert "3 ok, 1 failed (1 unreadable) by this command" in said
    assert "30, 10.0 per image by this command" in said
    assert "0.50 images/s (4 images in 8.0 s)" in said
    assert "the device was busy for 50% of the workers' time" in said
    assert "100 candidates: 70 low stability, 30 kept" in said
    assert "repeat the same command" in said


@pytest.mark.parametrize(
    ("found", "members", "headline"),
    [
        (0, 4, "finished, its one chunk is committed"),
        (1, 4, "nothing to do: its one chunk was already committed"),
        (0, 8, "finished, all 2 chunks committed"),
        (1, 8, "finished, all 2 chunks committed (1 was already committed)"),
        (2, 8, "nothing to do: all 2 chunks were already committed"),
    ],
)
def test_the_first_line_says_whether_all_is_there_and_what_was_before(found: int, members: int, headline: str):
    """A first folder of photographs is often one chunk."""
    shard = PlannedShard(replace(SHARD, member_count=members), 0, ("m",))
    manifest = Manifest("h", (CountedPart("a", size=9, sha256="s", rows=members, masks=1, failures={}),))
    outcome = replace(UNFINISHED, plan=replace(PLAN, shards=(shard,)), manifest=manifest, found_chunks=found)
    assert summary(outcome).splitlines()[0] == f"Maskmill: {headline}"


def test_the_summary_ends_by_saying_where_to_look_once_there_is_a_part():
    """Also of a run that goes on later. The name can be pasted into a shell as it stands."""
    assert summary(UNFINISHED).splitlines()[-1] == "  look     make look OUT=/o"
    assert summary(replace(UNFINISHED, out="/a b")).splitlines()[-1] == "  look     make look OUT='/a b'"
    assert "make look" not in summary(replace(UNFINISHED, committed_chunks=0))


def test_what_is_not_worked_on_is_counted_by_kind_and_the_first_of_each_is_named():
    """A folder of HEIC pictures beside three JPEGs was "3 ok"."""
    ignored = tuple(Ignored(f".{kind}", 9 - kind, f"a.{kind}") for kind in range(SHOWN_KINDS + 2))
    said = summary(replace(UNFINISHED, plan=replace(PLAN, ignored=ignored)))
    [line] = [line for line in said.splitlines() if "ignored" in line]
    assert line.startswith("  ignored  9 .0 (first: a.0), 8 .1 (first: a.1), ")
    assert line.endswith("5 .4 (first: a.4) and 7 more")
    assert "ignored" not in summary(UNFINISHED)


def test_halved_batches_are_counted():
    """A device that is short of memory at every image is slow, and nobody would know why."""
    reports = (replace(REPORT, halved=2), REPORT, replace(REPORT, halved=1))
    assert "it was short, and batches were halved 3 times" in summary(replace(UNFINISHED, reports=reports))
    assert "halved" not in summary(UNFINISHED)


def test_a_stop_is_said_and_has_a_code_of_its_own():
    """A scheduler that preempted the job must not take it for failed."""
    stopped = replace(UNFINISHED, ending=Ending.STOPPED)
    assert stopped.exit_code == 130
    assert "stopped by a signal" in summary(stopped)


def test_chunks_that_were_given_up_are_named_by_reason_up_to_ten():
    """Each reason with the chunk that had it first; the rest is counted, so that nothing is hidden."""
    given_up = tuple(GivenUp(Chunk("a", number, 0, 1), f"why {number % 12}") for number in range(30))
    outcome = replace(UNFINISHED, given_up=given_up)
    lines = [line.strip() for line in summary(outcome).splitlines() if "given up" in line]
    assert lines[0] == "given up a-00000 and 2 more chunks: why 0"
    assert lines[9] == "given up a-00009 and 1 more chunk: why 9"
    assert lines[10:] == ["given up 4 more chunks"]
    assert outcome.exit_code == 3
