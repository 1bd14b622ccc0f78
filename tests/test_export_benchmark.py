"""The instrument that measures exports: what it makes up is exported whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.export_readers import PLAIN
from benchmarks.exports import export_once, write_output
from pipeline.export.records import Form
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect

SLOW = (Form.PNG, Form.LABELME)


@pytest.mark.parametrize("form", [PLAIN, *(form for form in Form if form not in SLOW)])
def test_a_measurement_counts_every_mask(form: str, tmp_path: Path) -> None:
    """Parts that are left out as broken would show any speed."""
    write_output(2, str(tmp_path / "out"), connect(StoreSettings()), masks=3)
    found = export_once(form, str(tmp_path / "out"), tmp_path / form)
    assert found["masks"] == 200
    assert found["bytes_per_mask"] > 50
    assert found["files"] == {PLAIN: 2, "sa1b": 2, "yolo": 4}.get(form, found["files"])
    assert found["masks_read"] == 200 or (form == Form.LABEL_MAP and 0 < found["masks_read"] <= 6)
