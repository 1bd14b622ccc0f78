"""The instrument that measures a report: what it makes up is counted as a real output would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import CASES, Scale, collect_once, synthetic_plan, write_output
from pipeline.settings import Format


@pytest.mark.parametrize("case", CASES)
def test_a_measurement_counts_every_image_and_mask(case: str, tmp_path: Path):
    """A measurement of parts that are left out as broken would show any speed. The parts of it are few and small."""
    out = str(tmp_path / "out")
    write_output(case, synthetic_plan(64 * 3 + 8, Format.PARQUET), out, Scale(3, parts=2, masks=5))
    found = collect_once(case, out)
    assert (found["images"], found["parts"], found["parts_sampled"]) == (200, 4, 4)
    assert found["masks"] == found["masks_sampled"] == (200 - 4) * 3
    assert found["overlap_images"] > 0
    assert (found["grouped_images"] > 0) == (case == "grouped")
