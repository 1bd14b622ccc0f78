"""The instrument that measures the finish: what it makes up is finished as a real run would be."""

from __future__ import annotations

from pathlib import Path

from benchmarks.finish import CHUNKS_PER_SHARD, RECOUNTED, finish_once, prepare, synthetic_plan


def test_a_measurement_finishes_what_is_known_and_reads_the_rest(tmp_path: Path):
    """A measurement that reads nothing where it should would show any speed."""
    plan = synthetic_plan(shards=1)
    found = {}
    for case in ("ran", "recount"):
        prepare(case, plan, str(tmp_path / case))
        found[case] = finish_once(case, plan, str(tmp_path / case))
        assert (tmp_path / case / "_SUCCESS").exists()
    assert {case: row["parts"] for case, row in found.items()} == {"ran": CHUNKS_PER_SHARD, "recount": CHUNKS_PER_SHARD}
    assert found["ran"]["masks"] == found["recount"]["masks"] > 0
    assert CHUNKS_PER_SHARD < RECOUNTED
    assert (found["ran"]["bytes_read"], found["recount"]["bytes_read"]) == (0, found["recount"]["parts_bytes"])
