"""A run that was planned with other versions: refused unless that is allowed, and never unsaid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.output.verify import verify_output
from pipeline.plan.plan import OutputSettings, plan_from_json, plan_to_json
from pipeline.plan.planning import create_or_load_plan
from pipeline.plan.versions import PACKAGES, differing, versions_here
from pipeline.records import Attempt, Status
from pipeline.run.report import verification_lines
from pipeline.settings import Format, Settings
from pipeline.storage.parts import read_part
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext, process_chunk
from tests.fakes_run import Notes, drawn_image, fake_weights, write_folder
from tests.small_runs import context_of, generate, parts_of, run, with_run

OLDER = {**versions_here(), "torch": "2.0.1", "pyarrow": "9.0"}
DIFFERS = f"pyarrow 9.0 -> {versions_here()['pyarrow']}, torch 2.0.1 -> {versions_here()['torch']}"


def begun(settings: Settings, store: Store, *, chunks: int = 1, format: Format = Format.PARQUET) -> WorkerContext:
    """What OLDER versions have planned and begun."""
    output_settings = OutputSettings.of(replace(settings, format=format), weights_sha256="f" * 64)
    plan = create_or_load_plan(output_settings, out=settings.out, store=store, versions=OLDER).plan
    context = WorkerContext(out=settings.out, plan=plan, store=store, generate=generate, versions=OLDER)
    for chunk in list(plan.chunks())[:chunks]:
        process_chunk(Attempt(chunk), context)
    return context


def verified(settings: Settings, store: Store) -> list[str]:
    return list(verification_lines(verify_output(settings.out, store, Notes()), out=settings.out))


def test_a_run_of_other_versions_is_refused_by_name_and_left_as_it_is(settings: Settings, store: Store):
    """Two versions with different masks ended "sound, complete"."""
    begun(settings, store)
    before = parts_of(settings.out)
    with pytest.raises(ConfigError) as refused:
        run(settings)
    assert f"was planned with other versions: {DIFFERS}. " in str(refused.value)
    assert "run.allow_other_versions=true" in str(refused.value)
    assert parts_of(settings.out) == before
    assert not (Path(settings.out) / "_job" / "versions").exists()


@pytest.mark.usefixtures("cluster")
def test_what_is_allowed_is_said_and_recorded_and_told_by_verify(settings: Settings, store: Store):
    """A reader of the dataset must be able to tell the parts apart."""
    begun(settings, store, chunks=2)
    notes = Notes()
    outcome = run(with_run(settings, allow_other_versions=True), notes=notes)
    assert (outcome.exit_code, outcome.found_chunks) == (0, 2)
    said = [sentence for sentence in notes.sentences if DIFFERS in sentence]
    assert len(said) == 1
    [record] = (Path(settings.out) / "_job" / "versions").iterdir()
    assert str(record) in said[0]
    assert json.loads(record.read_bytes()) == dict(versions_here())
    parts = [read_part(part, format=Format.PARQUET) for part in parts_of(settings.out).values()]
    made_by = [json.loads(part.metadata["versions"]) for part in parts]
    assert (made_by.count([OLDER]), made_by.count([dict(versions_here())]), len(made_by)) == (2, 3, 5)
    headline, *_, last = verified(settings, store)
    assert headline.startswith("Maskmill: sound, complete")
    assert last == f"  versions 3 parts made by others than the plan's, as was allowed: {DIFFERS}"
    assert run(settings, find_weights=fake_weights).exit_code == 0, "a finished run makes nothing, so nothing is mixed"


@pytest.mark.parametrize("format", list(Format))
def test_a_part_of_versions_that_nobody_allowed_is_a_problem(settings: Settings, store: Store, format: Format):
    """A machine of a cluster may have other packages than the driver's; or none that are known."""
    context = begun(settings, store, format=format)
    chunks = list(context.plan.chunks())
    process_chunk(Attempt(chunks[1]), replace(context, versions=versions_here()))
    problems = [line for line in verified(settings, store) if line.startswith("  wrong ")]
    assert len(problems) == 1
    assert f"{chunks[1].chunk_id}" in problems[0]
    assert problems[0].endswith(f"other versions than the plan's made it: {DIFFERS}")


def test_a_part_with_rows_of_two_versions_names_both(settings: Settings, store: Store, tmp_path: Path):
    """Of a part whose failed rows are tried again the others stay, and so does what made them."""
    folder = write_folder(tmp_path / "in", {"a.png": drawn_image(1), "b.png": b"none", "c.png": drawn_image(3)})
    settings = replace(settings, source=str(folder))
    context = begun(settings, store)
    for versions in (versions_here(), OLDER):
        attempt = Attempt(next(context.plan.chunks()), again=True)
        process_chunk(attempt, replace(context, versions=versions))
        part = read_part(next(iter(parts_of(settings.out).values())), format=Format.PARQUET)
        assert json.loads(part.metadata["versions"]) == [OLDER, dict(versions_here())]
        assert [row.status for row in part.rows] == [Status.OK, Status.UNREADABLE, Status.OK]


def test_a_plan_keeps_its_versions_and_is_hashed_with_them(settings: Settings, store: Store):
    """And says nothing of them if it is of an older version."""
    plan = context_of(settings, store).plan
    assert dict(plan.versions) == dict(versions_here())
    assert plan_from_json(plan_to_json(plan), uri="x").versions == plan.versions
    assert replace(plan, versions=tuple(sorted(OLDER.items()))).sha256 != plan.sha256
    old: dict[str, Any] = json.loads(plan_to_json(replace(plan, version=3)))
    assert "versions" not in old


def test_what_shapes_the_output_has_a_version_here():
    """A package that is spelled wrongly would always be `none`, and never differ."""
    here = versions_here()
    assert list(here) == ["maskmill", *PACKAGES]
    assert "none" not in here.values()
    assert not any("+" in version for version in here.values())


def test_packages_that_came_or_went_differ():
    """A later Maskmill may add one to the list."""
    assert differing({"a": "1", "b": "2"}, {"b": "2", "c": "3"}) == "a 1 -> none, c none -> 3"
    assert differing(OLDER, OLDER) == ""
