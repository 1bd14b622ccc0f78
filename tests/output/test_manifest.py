"""The recount at the end of a run: whose parts it takes, and what it says of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.plan.layout import data_uri
from pipeline.plan.plan import OutputSettings
from pipeline.plan.planning import create_or_load_plan
from pipeline.records import Attempt
from pipeline.run.report import summary
from pipeline.settings import Settings
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext, process_chunk
from tests.fakes_run import drawn_image, fake_weights, write_folder
from tests.small_runs import generate, run, with_run


def worked_off(settings: Settings, store: Store) -> WorkerContext:
    """Every part of the run, and nothing of what comes after them: what the command then finds needs no worker."""
    weights = fake_weights(settings, store)
    output_settings = OutputSettings.of(settings, weights_sha256=weights.sha256)
    plan = create_or_load_plan(output_settings, out=settings.out, store=store).plan
    context = WorkerContext(out=settings.out, plan=plan, store=store, generate=generate)
    for chunk in plan.chunks():
        process_chunk(Attempt(chunk), context)
    return context


@pytest.fixture
def mixed(settings: Settings, tmp_path: Path) -> Settings:
    """Two chunks of three images; one of them can be read by nobody."""
    images = {f"{name}.png": drawn_image(ord(name)) for name in "abcdef"} | {"b.png": b"no image"}
    return with_run(replace(settings, source=str(write_folder(tmp_path / "mixed", images))), max_workers=1)


def test_a_part_of_another_plan_is_not_counted(mixed: Settings, store: Store, tmp_path: Path):
    """It has the name, and the number of rows; but it was made of other settings, and would be published as ours."""
    worked_off(mixed, store)
    other = replace(mixed, out=str(tmp_path / "other"), recipe=replace(mixed.recipe, pred_iou_thresh=0.9))
    worked_off(other, store)
    [first, *_] = sorted(Path(data_uri(other.out)).iterdir())
    shutil.copy(first, Path(data_uri(mixed.out)) / first.name)
    with pytest.raises(StorageError, match=first.name):
        run(mixed)
    assert not (Path(mixed.out) / "_SUCCESS").exists()
    assert not (Path(mixed.out) / "_job" / "manifest.json").exists()


def test_the_manifest_says_of_each_part_what_is_in_it(mixed: Settings, store: Store):
    """Readers plan their work by it; it is written from the parts themselves."""
    context = worked_off(mixed, store)
    outcome = run(mixed)
    assert outcome.manifest is not None
    document = json.loads((Path(mixed.out) / "_job" / "manifest.json").read_text())
    assert [part["name"] for part in document["parts"]] == ["mixed-00000.parquet", "mixed-00001.parquet"]
    assert [part["rows"] for part in document["parts"]] == [3, 3]
    assert document["plan_sha256"] == context.plan.sha256
    assert document["images"] == 6
    assert document["failures"] == outcome.manifest.failures
    assert [part["failures"] for part in document["parts"]] == [{"unreadable": 1}, {}]


@pytest.mark.parametrize(("fraction", "code"), [(1 / 6, 0), (0.16, 3), (0.0, 3), (1.0, 0)])
def test_more_failed_images_than_allowed_are_an_exit_code_and_as_many_as_allowed_are_not(
    mixed: Settings, store: Store, fraction: float, code: int
):
    """One of six cannot be read; all is committed either way."""
    worked_off(mixed, store)
    outcome = run(with_run(mixed, max_failed_fraction=fraction))
    assert outcome.exit_code == code
    assert (Path(mixed.out) / "_SUCCESS").exists()
    assert ("more than run.max_failed_fraction" in summary(outcome)) == (code == 3)
    assert (f"make report OUT={mixed.out} has the reasons" in summary(outcome)) == (code == 3)
