"""The settings that a plan freezes: what a resume may change, what it may not, and what is the same typed otherwise."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.plan import OutputSettings
from pipeline.plan.planning import create_or_load_plan
from pipeline.plan.versions import versions_here
from pipeline.settings import Recipe, Settings
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder
from tests.plan.making import make, shape_of
from tests.small_runs import RECIPE


def test_other_settings_are_refused_with_old_and_new_value_and_the_way_out(settings: Settings, store: Store):
    """Half of a dataset made with other settings is worse than none."""
    make(settings, store)
    changed = replace(settings, recipe=replace(settings.recipe, points_per_side=8, max_area_fraction=0.5))
    with pytest.raises(ConfigError) as refusal:
        make(changed, store)
    assert "recipe.points_per_side 4 -> 8" in str(refusal.value)
    assert "recipe.max_area_fraction None -> 0.5" in str(refusal.value)
    assert "images_per_chunk" not in str(refusal.value)
    assert "another out=" in str(refusal.value)


def test_settings_that_do_not_shape_the_output_may_change(settings: Settings, store: Store):
    """A resume on another machine has other workers and another patience."""
    make(settings, store)
    make(replace(settings, run=replace(settings.run, max_workers=7, chunk_attempts=9, grace_s=1.0)), store)


def another(value: Any) -> Any:
    """Of the same type, and within every range that settings have."""
    match value:
        case StrEnum():
            return next(member for member in type(value) if member is not value)
        case None:
            return 0.5
        case bool():
            return not value
        case float():
            return value / 2
        case int():
            return value + 1
        case _:
            return f"{value}x"


OF_THE_CHECKPOINT = ("checkpoint_notes", "model_family", "checkpoint_layout")
"""Follow from the checkpoint's hash."""


def changed_settings() -> dict[str, OutputSettings]:
    """The name of every setting that shapes the output, the source left out -> settings that differ in it alone."""
    settings = shape_of(Settings(source="s", out="o", recipe=RECIPE))
    changed = {
        f"recipe.{f.name}": replace(
            settings, recipe=replace(settings.recipe, **{f.name: another(getattr(settings.recipe, f.name))})
        )
        for f in fields(Recipe)
    }
    typed = {"model_name": "model.name", "precision": "model.precision", "weights_sha256": "model.weights_sha256"}
    typed |= {"depth": "image.depth"} | {name: f"recipe.{name}" for name in ("point_grid_sha256", "point_grid_points")}
    of_run = ("images_per_chunk", "max_pixels", "threads_per_worker", "max_bytes", "mixed_lists", "image_column")
    typed |= {name: f"run.{name}" for name in of_run}
    for f in fields(OutputSettings):
        if f.name not in ("source", "recipe", *OF_THE_CHECKPOINT):
            changed[typed.get(f.name, f.name)] = replace(settings, **{f.name: another(getattr(settings, f.name))})
    return changed


@pytest.mark.parametrize("name", list(changed_settings()))
def test_every_setting_that_shapes_the_output_is_hashed_and_refused_on_resume(
    name: str, settings: Settings, store: Store
):
    """One that is forgotten mixes two kinds of masks in one dataset: float sums depend on threads, masks on bits."""
    asked = shape_of(Settings(source=settings.source, out=settings.out, recipe=RECIPE))
    changed = replace(changed_settings()[name], source=settings.source)
    plan = create_or_load_plan(asked, out=settings.out, store=store).plan
    other = replace(plan, settings=replace(changed, source=plan.settings.source))
    assert other.sha256 != plan.sha256
    assert other.settings_sha256 != plan.settings_sha256
    with pytest.raises(ConfigError, match=rf"planned with other settings: {re.escape(name)} [^,]* -> [^,]*\. Resume"):
        create_or_load_plan(changed, out=settings.out, store=store)


def test_what_a_checkpoint_is_stays_in_the_plan_and_changes_none_that_does_not_say_it(settings: Settings, store: Store):
    """It follows from the file, so it is not compared; a plan of before it was kept has its hash still."""
    notes = ("prefix 'module.' of the keys",)
    asked = replace(shape_of(settings), checkpoint_notes=notes, model_family="sam2", checkpoint_layout="released")
    plan = create_or_load_plan(asked, out=settings.out, store=store).plan
    named = plan.settings.named()
    assert named["model.checkpoint_notes"] == list(notes)
    assert (named["model.family"], named["model.checkpoint_layout"]) == ("sam2", "released")
    assert (
        not {f"model.{name.removeprefix('model_')}" for name in OF_THE_CHECKPOINT} & shape_of(settings).named().keys()
    )
    assert make(settings, store) == plan


def test_a_plan_of_a_model_that_transformers_encodes_for_has_its_version(settings: Settings, store: Store):
    """Another version may encode otherwise. Other models do not depend on it, or need it to be there."""
    plan = create_or_load_plan(replace(shape_of(settings), model_family="sam3"), out=settings.out, store=store).plan
    assert dict(plan.versions) == {**versions_here(), "transformers": version("transformers")}


@pytest.mark.parametrize("name", ["images", "one, two"])
def test_one_source_may_be_typed_in_many_ways(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """A trailing slash, another working folder, and a comma in the name itself."""
    folder = write_folder(tmp_path / name, {"a.png": drawn_image(1)})
    monkeypatch.chdir(tmp_path)
    plan = make(replace(settings, source=name), store)
    assert plan.settings.source == str(folder)
    monkeypatch.chdir("/")
    for typed in (str(folder), f"{folder}/", f"{tmp_path}/x/../{name}", f"file://{tmp_path}/{quote(name)}"):
        assert make(replace(settings, source=typed), store) == plan
    with pytest.raises(ConfigError, match=r"source '.*' -> "):
        make(replace(settings, source=name), store)


def test_several_sources_are_compared_one_by_one(settings: Settings, store: Store, tmp_path: Path):
    """Order means nothing, and neither does what has gone since the plan was made."""
    one = write_folder(tmp_path / "one", {"a.png": drawn_image(1)})
    two = write_folder(tmp_path / "two", {"b.png": drawn_image(2)})
    plan = make(replace(settings, source=f"{one},{two}"), store)
    assert plan.settings.source == f"{one},{two}"
    (two / "b.png").unlink()
    assert make(replace(settings, source=f"{two}/ , {one}/"), store) == plan
    with pytest.raises(ConfigError, match="planned with other settings: source"):
        make(replace(settings, source=str(one)), store)
