"""The frozen plan: made, found by those who come later, and read again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.layout import plan_uri
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import Plan, plan_from_json, plan_to_json
from pipeline.plan.planning import create_or_load_plan, load_plan
from pipeline.records import Member
from pipeline.settings import Recipe, Settings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import local_path
from tests.fakes_run import drawn_image, write_folder, write_tar
from tests.plan.making import make, shape_of


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
