"""The frozen plan: making, finding, comparing."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.layout import plan_uri
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import OutputSettings, Plan, plan_from_json, plan_to_json
from pipeline.plan.planning import create_or_load_plan, load_plan
from pipeline.records import Member
from pipeline.settings import Recipe, Settings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import local_path
from tests.fakes_run import drawn_image, write_folder, write_tar
from tests.small_runs import RECIPE


def shape_of(settings: Settings) -> OutputSettings:
    return OutputSettings.of(settings, weights_sha256="w" * 64)


def make(settings: Settings, store: Store) -> Plan:
    return create_or_load_plan(shape_of(settings), out=settings.out, store=store).plan


def planned_members(settings: Settings, plan: Plan, store: Store) -> list[Member]:
    index = MemberIndex(plan, out=settings.out, store=store)
    return [m for planned in plan.shards for m in index.read(planned.shard.name, 0, planned.shard.member_count)]


class LateStore(RoutedStore):
    """A store in which somebody else's plan appears between this planner's look and its write."""

    def __init__(self, inner: Store, uri: str, data: bytes) -> None:
        super().__init__(StoreSettings())
        self._inner, self._uri, self._data = inner, uri, data

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        if uri == self._uri:
            self._inner.put_if_absent(uri, self._data)
        return self._inner.put_if_absent(uri, data)


def test_every_member_is_planned_once_and_chunks_cover_the_shards(settings: Settings, store: Store):
    """Chunks of at most three, never across two shards; ordinals run through."""
    plan = make(settings, store)
    chunks = list(plan.chunks())
    assert [(chunk.chunk_id, chunk.start, chunk.stop) for chunk in chunks[-2:]] == [
        ("more-00000", 0, 3),
        ("more-00001", 3, 5),
    ]
    assert len(chunks) == plan.chunk_count == 5
    members = planned_members(settings, plan, store)
    assert [member.ordinal for member in members] == list(range(13)) == list(range(plan.image_count))
    assert len({member.image_id for member in members}) == 13


def test_plan_survives_its_json(settings: Settings, store: Store):
    """What is resumed is what was planned, hash included."""
    plan = make(settings, store)
    again = plan_from_json(plan_to_json(plan), uri="x")
    assert again == plan
    assert again.sha256 == plan.sha256
    assert load_plan(settings.out, store=store) == plan


def test_plan_says_nothing_of_where_out_is(settings: Settings, store: Store, tmp_path: Path):
    """The same run into another OUT must give the same bytes."""
    elsewhere = replace(settings, out=str(tmp_path / "elsewhere" / "out"))
    assert plan_to_json(make(settings, store)) == plan_to_json(make(elsewhere, store))


def test_resume_does_not_list_the_source_again(tmp_path: Path, settings: Settings, store: Store):
    """An image that came later would shift every chunk behind it."""
    folder = write_folder(tmp_path / "growing", {"b.png": drawn_image(1)})
    settings = replace(settings, source=str(folder))
    first = make(settings, store)
    os.utime(local_path(plan_uri(settings.out)), (0, 86_400))
    write_folder(folder, {"a.png": drawn_image(2)})
    said: list[str] = []
    planned = create_or_load_plan(shape_of(settings), out=settings.out, store=store, say=said.append)
    assert planned.plan == first
    assert not planned.created
    assert planned.frozen_at == datetime(1970, 1, 2, tzinfo=UTC)
    assert len(said) == 1
    assert "frozen since 1970-01-02 00:00:00 UTC; images that came to the source later need another out=" in said[0]


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
    of_run = ("images_per_chunk", "max_pixels", "threads_per_worker", "max_bytes", "mixed_lists")
    typed |= {name: f"run.{name}" for name in of_run}
    for f in fields(OutputSettings):
        if f.name not in ("source", "recipe"):
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


def test_planner_that_loses_adopts_the_winners_plan(settings: Settings, store: Store, tmp_path: Path):
    """Two commands started together must do one run; the plan's appearance decides."""
    winner = make(replace(settings, out=str(tmp_path / "winner")), store)
    theirs = replace(winner, shards=winner.shards[:1])
    late = LateStore(store, plan_uri(settings.out), plan_to_json(theirs))
    planned = create_or_load_plan(shape_of(settings), out=settings.out, store=late)
    assert not planned.created
    assert planned.plan == theirs


def test_planner_that_loses_to_other_settings_is_refused(settings: Settings, store: Store, tmp_path: Path):
    """Losing the race is no licence to work with somebody else's recipe."""
    other = replace(settings, recipe=Recipe(points_per_side=9), out=str(tmp_path / "winner"))
    late = LateStore(store, plan_uri(settings.out), plan_to_json(make(other, store)))
    with pytest.raises(ConfigError, match="points_per_side 9 -> 4"):
        create_or_load_plan(shape_of(settings), out=settings.out, store=late)


def test_member_index_left_by_an_unfinished_planner_is_not_taken_for_the_plans(
    tmp_path: Path, settings: Settings, store: Store
):
    """A planner may die between the indexes and the plan, and the source may change before the next one."""
    folder = write_folder(tmp_path / "images", {"a.png": drawn_image(1)})
    settings = replace(settings, source=str(folder))
    make(settings, store)
    os.unlink(plan_uri(settings.out))
    write_folder(folder, {"b.png": drawn_image(2)})
    plan = make(settings, store)
    assert [member.key for member in planned_members(settings, plan, store)] == ["a.png", "b.png"]


def test_sa_numbers_are_unique_over_shards(tmp_path: Path, settings: Settings, store: Store):
    """The same sa_<n> in two tars belongs to neither."""
    for tar in ("one.tar", "two.tar"):
        write_tar(tmp_path / "tars" / tar, {"sa_3.png": drawn_image(1), f"{tar}.png": drawn_image(2)})
    write_tar(tmp_path / "tars" / "three.tar", {"sa_9.png": drawn_image(3)})
    settings = replace(settings, source=str(tmp_path / "tars"))
    plan = make(settings, store)
    ids = [member.image_id for member in planned_members(settings, plan, store)]
    assert ids == [10, 11, 9, 13, 14]


def test_a_tar_that_shares_one_number_keeps_the_numbers_that_are_its_own(
    tmp_path: Path, settings: Settings, store: Store
):
    """One twin in a shard of SA-1B must not cost its other images their ids, nor leave the twin an id that is taken."""
    for tar, own in (("one.tar", 4), ("two.tar", 5)):
        write_tar(tmp_path / "tars" / tar, {"sa_3.png": drawn_image(1), f"sa_{own}.png": drawn_image(own)})
    settings = replace(settings, source=str(tmp_path / "tars"))
    members = planned_members(settings, make(settings, store), store)
    assert [(member.key, member.image_id) for member in members] == [
        *[("sa_3.png", 6), ("sa_4.png", 4)],
        *[("sa_3.png", 8), ("sa_5.png", 5)],
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "not a plan"), (b'{"schema_version": 99}', "plan version 99"), (b'{"schema_version": 2}', "not a plan")],
)
def test_a_plan_that_cannot_be_read_is_refused_by_name(content: bytes, words: str):
    """Never overwritten, never half understood."""
    with pytest.raises(ConfigError, match=words):
        plan_from_json(content, uri="OUT/_job/plan.json")


def test_a_source_without_images_is_refused(tmp_path: Path, settings: Settings, store: Store):
    """Before a model is loaded, and nothing is left in OUT."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty"):
        make(replace(settings, source=str(tmp_path / "empty")), store)
    assert not Path(settings.out).exists()


def test_a_run_whose_annotation_ids_would_not_fit_is_refused_before_it_is_planned(settings: Settings, store: Store):
    """Found out by a worker, it would be found out by all of them."""
    with pytest.raises(ConfigError, match=r"13 images with up to \d+ masks each need annotation ids beyond"):
        make(replace(settings, recipe=replace(settings.recipe, points_per_side=2**25)), store)
    assert load_plan(settings.out, store=store) is None


def test_entries_that_are_no_images_are_counted_per_shard(settings: Settings, store: Store, tmp_path: Path):
    """What the summary calls ignored; a source of the wrong kind is noticed by it."""
    folder = write_folder(tmp_path / "in", {"a.png": drawn_image(1), "a.json": b"", "b.txt.bak": b""})
    write_tar(folder / "t.tar", {"sa_1.png": drawn_image(2), "sa_1.json": b"", "x": b"", "y": b""})
    plan = make(replace(settings, source=str(folder)), store)
    assert {planned.shard.name: planned.shard.ignored_count for planned in plan.shards} == {"in": 2, "t": 3}
    assert sum(ignored.count for ignored in plan.ignored) == 5


@pytest.mark.parametrize(
    ("tick_s", "said"),
    [
        (0.0, []),
        (10.0, ["planning: 1 of 2 shards indexed, 8 images", "planning: 2 of 2 shards indexed, 13 images"]),
    ],
)
def test_planning_says_how_far_it_is_now_and_then(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, tick_s: float, said: list[str]
):
    """Listing a hundred million images takes an hour; each of a thousand shards of a small run is no news."""
    ticks = count(step=tick_s)
    monkeypatch.setattr("pipeline.plan.planning.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    heard: list[str] = []
    create_or_load_plan(shape_of(settings), out=settings.out, store=store, say=heard.append)
    assert heard == said


def test_plan_json_is_for_people_too(settings: Settings, store: Store):
    """Settings stand under the names that are typed."""
    document = json.loads(plan_to_json(make(settings, store)))
    assert document["settings"]["recipe.points_per_side"] == 4
    assert document["settings"]["run.images_per_chunk"] == 3
    assert document["images"] == 13
