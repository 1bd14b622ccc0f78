"""Making a plan, or finding the one that is there.

Owns the order of planning (member indexes first, plan.json last, by one conditional write) and the comparison of
settings on resume. The source is listed once in a run's life; a resume reads the plan and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pipeline.errors import ConfigError, ContractError, NotFoundError
from pipeline.records import Member, Shard
from pipeline.run.ids import ImageIds, annotation_stride
from pipeline.run.plan import (
    Plan,
    PlannedShard,
    Shape,
    members_uri,
    plan_from_json,
    plan_to_json,
    plan_uri,
)
from pipeline.run.source import canonical, spellings
from pipeline.storage.kinds import IMAGE_EXTENSIONS
from pipeline.storage.members import write_members
from pipeline.storage.shards import ShardIndex, ShardSource, find_shards, index_shard
from pipeline.storage.store import Store

INDEX_THREADS = 8
"""Shards indexed at once: the work is waiting for a store."""


@dataclass(frozen=True)
class Planned:
    """A plan that is now in OUT. `created` is False if it was there before, or if another planner was faster."""

    plan: Plan
    created: bool


def create_or_load_plan(shape: Shape, *, out: str, store: Store) -> Planned:
    """The run's plan: the one in OUT if there is one, else a new one from the source.

    raises  ConfigError if the plan in OUT was made with other settings, or the source holds no image
    """
    existing = load_plan(out, store=store)
    if existing is not None:
        _refuse_other_settings(existing.shape, shape, out=out)
        return Planned(plan=existing, created=False)
    plan, indexes = _plan_source(shape, store=store)
    for planned, data in zip(plan.shards, indexes, strict=True):
        store.put_if_absent(members_uri(out, planned), data)
    if store.put_if_absent(plan_uri(out), plan_to_json(plan)):
        return Planned(plan=plan, created=True)
    theirs = load_plan(out, store=store)
    if theirs is None:
        raise ContractError(f"{plan_uri(out)} was there when it was to be created, and is gone now")
    _refuse_other_settings(theirs.shape, shape, out=out)
    return Planned(plan=theirs, created=False)


def load_plan(out: str, *, store: Store) -> Plan | None:
    """The plan in OUT, or None if OUT has none."""
    uri = plan_uri(out)
    try:
        data = store.read(uri)
    except NotFoundError:
        return None
    return plan_from_json(data, uri=uri)


def _plan_source(shape: Shape, *, store: Store) -> tuple[Plan, list[bytes]]:
    sources = find_shards(shape.source, store)

    def index(source: ShardSource) -> ShardIndex:
        return index_shard(source, store)

    with ThreadPoolExecutor(INDEX_THREADS) as pool:
        found = list(pool.map(index, sources))
    total = sum(len(shard.members) for shard in found)
    if not total:
        ignored = sum(shard.ignored_count for shard in found)
        raise ConfigError(
            f"source={shape.source} holds no image ({len(sources)} shards, {ignored} other entries); "
            f"images end in {', '.join(sorted(IMAGE_EXTENSIONS))}"
        )
    annotation_stride(shape.recipe, images=total)
    ids = ImageIds(member.key for shard in found for member in shard.members)
    shards: list[PlannedShard] = []
    indexes: list[bytes] = []
    first = 0
    for source, shard in zip(sources, found, strict=True):
        data = write_members(_members(shard, ids, first_ordinal=first))
        shards.append(_planned_shard(source, shard, first_ordinal=first, data=data))
        indexes.append(data)
        first += len(shard.members)
    return Plan(shape=replace(shape, source=canonical(shape.source, store)), shards=tuple(shards)), indexes


def _members(index: ShardIndex, ids: ImageIds, *, first_ordinal: int) -> Sequence[Member]:
    numbers = ids.of((member.key for member in index.members), first_ordinal=first_ordinal)
    return [
        Member(
            ordinal=ordinal,
            image_id=image_id,
            key=found.key,
            uri=found.uri,
            offset=found.offset,
            length=found.length,
            etag=found.etag,
            broken=found.broken,
        )
        for ordinal, (found, image_id) in enumerate(zip(index.members, numbers, strict=True), start=first_ordinal)
    ]


def _planned_shard(source: ShardSource, index: ShardIndex, *, first_ordinal: int, data: bytes) -> PlannedShard:
    shard = Shard(
        name=source.name,
        uri=source.uri,
        kind=str(source.kind),
        member_count=len(index.members),
        ignored_count=index.ignored_count,
    )
    return PlannedShard(shard=shard, first_ordinal=first_ordinal, members_sha256=hashlib.sha256(data).hexdigest())


def _refuse_other_settings(planned: Shape, asked: Shape, *, out: str) -> None:
    """Sources are compared by what they name; what lies there now does not matter to a plan that is made."""
    if planned.source in spellings(asked.source):
        asked = replace(asked, source=planned.source)
    before, now = planned.named(), asked.named()
    changed = [f"{name} {before[name]!r} -> {now[name]!r}" for name in before if before[name] != now[name]]
    if changed:
        raise ConfigError(
            f"{out} was planned with other settings: {', '.join(changed)}. "
            "Resume with the settings it was planned with, or choose another out="
        )
