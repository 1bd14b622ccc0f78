"""The report of a command that an error ends. What a finished one says is asked of real runs (test_output.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, RunError, StorageError
from pipeline.plan.plan import OutputSettings, Plan
from pipeline.run.run_report import new_run_id, reported
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.store import ObjectInfo, Store
from tests.fakes_run import Notes

SETTINGS = Settings(source="s", out="o")
PLAN = Plan(OutputSettings.of(SETTINGS, weights_sha256="w" * 64), ())


@pytest.mark.parametrize(
    ("error", "code"), [(RunError("gone"), 3), (ConfigError("wrong"), 2), (KeyboardInterrupt(), 130), (OSError(), 1)]
)
def test_an_error_is_reported_with_its_exit_code_and_goes_on(
    tmp_path: Path, store: Store, error: BaseException, code: int
):
    """At four in the morning the file is all there is."""
    with (
        pytest.raises(type(error)),
        reported(SETTINGS, PLAN, run_id="r1", out=str(tmp_path), store=store, say=Notes().say),
    ):
        raise error
    report = json.loads((tmp_path / "_job" / "reports" / "r1.json").read_text())
    assert report["exit_code"] == code
    assert report["error"] == f"{type(error).__name__}: {error}"
    assert report["settings"]["source"] == "s"
    assert {"python", "torch", "ray"} <= report["versions"].keys()
    assert report["who"]["host"]


class Full(RoutedStore):
    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        raise StorageError(f"{uri}: no space")


def test_a_store_that_does_not_take_the_report_does_not_hide_why_the_run_ended(tmp_path: Path):
    notes = Notes()
    with (
        pytest.raises(RunError, match="gone"),
        reported(SETTINGS, PLAN, run_id="r1", out=str(tmp_path), store=Full(StoreSettings()), say=notes.say),
    ):
        raise RunError("gone")
    assert "the report of this command is not written" in notes.sentences[0]


def test_reports_sort_by_time_and_never_meet():
    ids = [new_run_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert [run_id.partition("-")[0] for run_id in ids] == sorted(run_id.partition("-")[0] for run_id in ids)
