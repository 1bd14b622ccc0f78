"""What a list may name, and what a plan that somebody has edited can reach: nothing outside the source and OUT."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.layout import members_uri, part_uri, plan_uri
from pipeline.plan.plan import plan_from_json
from pipeline.plan.planning import load_plan
from pipeline.records import Attempt, Chunk, Status
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import RoutedStore, connect
from pipeline.storage.members import FoundMember, IndexBuilder
from pipeline.storage.store import ObjectInfo, Store
from pipeline.work.chunk import process_chunk
from tests.fakes_run import drawn_image, write_folder, write_tar
from tests.output.test_verify import run_without_a_cluster, verified, whats
from tests.small_runs import context_of, rows_of, with_run, work


class Touched(RoutedStore):
    """The usual stores; remembers every URI that was asked about."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings)
        self.uris: list[str] = []

    def _backend(self, uri: str) -> Store:
        self.uris.append(uri)
        return super()._backend(uri)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that no command names; an image, so that nothing but the rule can stop it."""
    write_folder(tmp_path / "private", {"secret.png": drawn_image(9)})
    return tmp_path / "private" / "secret.png"


def test_a_list_in_a_bucket_learns_nothing_of_a_machines_disks(
    settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str, secret: Path
):
    """Whoever may write the list would have its hash and its masks in the dataset; or learn that it is not there."""
    s3_client.put_object(Bucket=s3_bucket, Key="a.png", Body=drawn_image(1))
    lines = f"s3://{s3_bucket}/a.png\n{secret}\n/etc/no-such-file.png\nfile://{secret}\na.png\n"
    s3_client.put_object(Bucket=s3_bucket, Key="list.txt", Body=lines.encode())
    settings = replace(settings, source=f"s3://{s3_bucket}/list.txt")
    store = Touched(StoreSettings(endpoint_url=s3_endpoint))
    context = context_of(settings, store)
    work(context)
    rows = rows_of(context)
    assert [str(row.status) for row in rows] == ["ok", "unreadable", "unreadable", "unreadable", "ok"]
    for row in rows[1:4]:
        assert (row.sha256, row.masks) == ("", ())
        assert row.error.startswith(f"s3://{s3_bucket}/list.txt:")
        assert row.error.endswith("run.mixed_lists=true lets lists name both")
    assert not [uri for uri in store.uris if "secret" in uri or uri.startswith("/etc")]
    allowed = replace(with_run(settings, mixed_lists=True), out=f"{settings.out}-mixed")
    context = context_of(allowed, store)
    work(context)
    assert [str(row.status) for row in rows_of(context)] == ["ok", "ok", "missing", "ok", "ok"]


def test_a_list_on_disk_names_objects_in_stores_only_if_it_may(
    settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str, tmp_path: Path
):
    """A list of nothing else is refused before anything is planned, with the way to allow it."""
    s3_client.put_object(Bucket=s3_bucket, Key="a.png", Body=drawn_image(1))
    (tmp_path / "list.txt").write_text(f"s3://{s3_bucket}/a.png\n")
    settings = replace(settings, source=str(tmp_path / "list.txt"))
    store = Touched(StoreSettings(endpoint_url=s3_endpoint))
    with pytest.raises(ConfigError, match=r"none of the 1 entries .*list\.txt:1: .*run\.mixed_lists=true"):
        context_of(settings, store)
    assert not [uri for uri in store.uris if uri.startswith("s3://")]
    context = context_of(with_run(settings, mixed_lists=True), store)
    work(context)
    assert [str(row.status) for row in rows_of(context)] == ["ok"]


def test_lines_that_an_older_plan_let_through_are_rows_unless_the_command_allows_them(
    settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str, secret: Path
):
    """Its index was written before there was a rule; and an attacker may call any plan an old one."""
    s3_client.put_object(Bucket=s3_bucket, Key="list.txt", Body=f"{secret}\n".encode())
    settings = replace(settings, source=f"s3://{s3_bucket}/list.txt")
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    context_of(with_run(settings, mixed_lists=True), store)
    edit(settings, lambda plan: plan.update(schema_version=3))
    for mixed_lists, status in ((False, Status.UNREADABLE), (True, Status.OK)):
        context = context_of(with_run(settings, mixed_lists=mixed_lists), store)
        work(context)
        assert [row.status for row in rows_of(context)] == [status]
        assert "run.mixed_lists" not in context.plan.settings.named(version=3)
        Path(part_uri(settings.out, context.plan, next(context.plan.chunks()))).unlink()


# ---- a plan and an index that somebody has edited


def edit(settings: Settings, change: Callable[[dict[str, Any]], object]) -> None:
    path = Path(plan_uri(settings.out))
    plan = json.loads(path.read_bytes())
    change(plan)
    path.write_text(json.dumps(plan))


def named_index(settings: Settings, shard: str, *members: FoundMember) -> dict[str, Any]:
    """An index of these members in OUT, as the entries of a plan that name it rightly, hash and all."""
    builder = IndexBuilder()
    for member in members:
        builder.add(member)
    [piece] = builder.finish()
    sha256 = hashlib.sha256(piece.data).hexdigest()
    Path(members_uri(settings.out, shard, sha256)).write_bytes(piece.data)
    return {"members_sha256": [sha256]}


def everything_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../../escaped"},
        {"name": "/escaped"},
        {"name": "a/b"},
        {"name": ""},
        {"name": "more"},
        {"uri": "{private}"},
        {"uri": "{source}/../private"},
        {"uri": "/"},
        {"uri": "s3://elsewhere/in"},
        {"uri": "{source}-2"},
        {"uri": "{private}/secret.png", "kind": "list"},
        {"uri": "{source}/list.txt", "kind": "list"},
        {"uri": "{source}/list.txt", "kind": "tar"},
        {"kind": "device"},
    ],
)
def test_an_edited_plan_is_refused_before_anything_is_read_or_written(
    settings: Settings, store: Store, tmp_path: Path, secret: Path, change: dict[str, str]
):
    """A resume read another folder, and wrote a part outside OUT."""
    images = write_folder(tmp_path / "in", {"a.png": drawn_image(1)})
    write_tar(images / "more.tar", {"b.png": drawn_image(2)})
    settings = replace(settings, source=str(images))
    context_of(settings, store)
    places = {"private": secret.parent, "source": images}
    edit(settings, lambda plan: plan["shards"][0]["shard"].update({k: v.format(**places) for k, v in change.items()}))
    before = everything_in(tmp_path)
    with pytest.raises(ConfigError, match=r"plan\.json .*somebody has edited it: put back what was written, or choose"):
        context_of(settings, store)
    assert everything_in(tmp_path) == before


def test_a_hash_in_a_plan_that_is_a_path_is_refused(settings: Settings, store: Store):
    """It stands in the name of the index that is read."""
    context_of(settings, store)
    edit(settings, lambda plan: plan["shards"][0].update(members_sha256=["../../../x/y"]))
    with pytest.raises(ConfigError, match="hash of shard source0 that is none"):
        load_plan(settings.out, store=store)


@pytest.mark.parametrize("where", ["{private}/secret.png", "{source}/../private/secret.png", "s3://elsewhere/a.png"])
@pytest.mark.parametrize("shard", [0, 1], ids=["folder", "tar"])
def test_an_index_that_names_what_is_not_in_its_shard_stops_the_worker(
    settings: Settings, store: Store, tmp_path: Path, secret: Path, where: str, shard: int
):
    """Edited together with the plan, so that every hash is right; found where the image would be read."""
    images = write_folder(tmp_path / "in", {"a.png": drawn_image(1)})
    write_tar(images / "more.tar", {"b.png": drawn_image(2)})
    settings = replace(settings, source=str(images))
    name = list(context_of(settings, store).plan.chunks())[shard].shard
    member = FoundMember("a.png", where.format(private=secret.parent, source=images), 0, secret.stat().st_size, "")
    entries = named_index(settings, name, member)
    edit(settings, lambda plan: plan["shards"][shard].update(entries))
    context = context_of(settings, store)
    with pytest.raises(ConfigError, match=rf"member index of {name} has .*, which is not in .*somebody has edited it"):
        process_chunk(Attempt(list(context.plan.chunks())[shard]), context)
    assert not (Path(settings.out) / "data").exists()
    assert "somebody has edited it" in whats(verified(settings.out, store))


def test_an_image_that_is_its_own_shard_is_no_other_image(
    settings: Settings, store: Store, tmp_path: Path, secret: Path
):
    """It counts as a list of itself, and a list may name much."""
    image = write_folder(tmp_path / "in", {"a.png": drawn_image(1)}) / "a.png"
    settings = replace(settings, source=str(image))
    context_of(settings, store)
    entries = named_index(settings, "a", FoundMember("a.png", str(secret), 0, 0, ""))
    edit(settings, lambda plan: plan["shards"][0].update(entries))
    with pytest.raises(ConfigError, match="which is not in"):
        work(context_of(settings, store))


def test_no_part_has_a_place_outside_out(settings: Settings, store: Store):
    """Also if a plan came by another way than its file."""
    plan = context_of(settings, store).plan
    with pytest.raises(Exception, match="no name of a shard"):
        part_uri(settings.out, plan, Chunk("../../../escaped", 0, 0, 1))


SOURCES = ["{in}", "{in}/", "{in}/*.png", "{in}/d?y*/*.png", "{in}/day [1]/*.png", "{in}/*"]
SOURCES += ["{in}/more.tar,{in}/day [1]", "{in}/a.png", "{lists}", "{comma}"]


@pytest.mark.parametrize("source", SOURCES)
def test_what_was_planned_is_within_its_bounds(settings: Settings, store: Store, tmp_path: Path, source: str):
    """Names that a source may have: patterns, names that look like patterns, bytes that are no UTF-8, links, commas."""
    folder = write_folder(
        tmp_path / "a b" / "in", {"a.png": drawn_image(1), "day [1]/b.png": drawn_image(2), "c*.png": drawn_image(3)}
    )
    (folder / "\udcff.png").write_bytes(drawn_image(4))
    write_tar(folder / "more.tar", {"../../t.png": drawn_image(5), "/abs.png": drawn_image(6)})
    (folder / "link").symlink_to(write_folder(tmp_path / "elsewhere", {"l.png": drawn_image(7)}))
    (tmp_path / "l.txt").write_text(f"a b/in/a.png\n{folder}/day [1]/b.png\n")
    comma = write_folder(tmp_path / "x,y", {"a.png": drawn_image(8)})
    settings = replace(settings, source=source.format(**{"in": folder, "lists": tmp_path / "*.txt", "comma": comma}))
    run_without_a_cluster(settings, store)
    context = context_of(settings, store)
    assert {str(row.status) for row in rows_of(context)} == {"ok"}
    assert whats(verified(settings.out, store)) == ""


def test_a_plan_in_a_bucket_has_the_same_bounds(settings: Settings, s3_endpoint: str, s3_client: Any, s3_bucket: str):
    """There two dots are a name like any other, and a prefix ends at a slash."""
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    for key in ("in/../a.png", "in/b.png", "in2/c.png"):
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=drawn_image(len(key)))
    settings = replace(settings, source=f"s3://{s3_bucket}/in")
    context = context_of(settings, store)
    work(context)
    assert [row.file_name for row in rows_of(context)] == ["../a.png", "b.png"]
    text = Path(plan_uri(settings.out)).read_text()
    for place in (f"s3://{s3_bucket}/in2", f"s3://{s3_bucket}", "s3://other/in", "/in"):
        with pytest.raises(ConfigError, match="which is not in source="):
            plan_from_json(
                text.replace(f'"uri": "s3://{s3_bucket}/in"', f'"uri": "{place}"').encode(), uri="OUT/_job/plan.json"
            )


def test_the_store_is_asked_of_nothing_but_what_the_bounds_allow(settings: Settings) -> None:
    """The double of a store that the tests above trust."""
    store = Touched(StoreSettings())
    assert store.head(f"{settings.source}/im0.png") == ObjectInfo(*store.head(f"{settings.source}/im0.png"))
    assert store.uris == [f"{settings.source}/im0.png"] * 2
