"""The plan of a run, frozen before the first image is read: the settings that shape the output, the shards, the chunks.

Owns these records, their JSON and their hashes. A plan does not depend on where OUT is, on time, host or number of
workers. planning.py makes and loads plans.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, cast

from pipeline.errors import ConfigError, ContractError
from pipeline.plan.bounds import check_shards
from pipeline.plan.ids import annotation_stride
from pipeline.plan.point_grid import PointGrid
from pipeline.records import Chunk, Ignored, Shard
from pipeline.settings import CropRank, Depth, Format, Precision, Recipe, RunSettings, Settings
from pipeline.storage.indexing import ShardKind
from pipeline.storage.uris import absolute

PLAN_VERSION = 4
READABLE_VERSIONS = (2, 3, 4)
"""Version 2 does not say what was ignored; 2 and 3 do not say by which versions they were made."""
_ONLY_IF_ASKED_FOR = ("point_grid", "roi", "nodata", "use_m2m")
"""Of a recipe; a plan without them is what it was before there were any."""
_SINCE_VERSION_4 = ("run.max_bytes", "run.mixed_lists")
"""Settings that an older plan does not have, and leaves to the command that resumes it."""


UNPACKED_BY = 8
"""Chunks of a compressed tar, if `LARGEST_OF_COMPRESSED` allows. If every one of them begins anew, the tar is unpacked
(1 + 2 + ... + 8) / 8 = 4.5 times in all."""
LARGEST_OF_COMPRESSED = 1024
"""Images of such a chunk, unless `run.images_per_chunk` is larger. A worker holds the masks of a chunk to its end."""


@dataclass(frozen=True)
class OutputSettings:
    """The settings that shape the output: two runs with the same source bytes and the same of these give equal
    parts on one class of device."""

    source: str
    """As typed; in a plan, in the canonical spelling (see storage.shards.spellings)."""
    format: Format
    recipe: Recipe
    """Without the place of `point_grid`: its points are known by their hash."""
    model_name: str
    precision: Precision
    weights_sha256: str
    images_per_chunk: int
    max_pixels: int
    threads_per_worker: int
    max_bytes: int
    mixed_lists: bool
    checkpoint_notes: tuple[str, ...] = ()
    """What of the checkpoint's file is not in the model, by looking at it. A plan says it if there is any."""
    model_family: str = ""
    """Of the checkpoint's model; a plan of before it was kept does not say it."""
    checkpoint_layout: str = ""
    """Whose names the tensors in the checkpoint's file have. As `model_family`."""
    image_column: str | None = None
    """In a plan only if it was asked for."""
    depth: Depth = Depth.SCALE
    """In a plan only if it is another one."""
    point_grid_sha256: str = ""
    point_grid_points: int = 0
    """In a plan only if there are any."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        weights_sha256: str,
        point_grid: PointGrid | None = None,
    ) -> OutputSettings:
        """Without what is known of the checkpoint beside its hash.

        point_grid  the content of `recipe.point_grid`, if it names a file
        """
        recipe = settings.recipe
        if (recipe.point_grid is None) != (point_grid is None):
            raise ContractError(f"recipe.point_grid={recipe.point_grid} was not read")
        return cls(
            source=settings.source,
            format=settings.format,
            recipe=replace(recipe, point_grid=None, roi=None if recipe.roi is None else absolute(recipe.roi)),
            model_name=settings.model.name,
            precision=settings.model.precision,
            weights_sha256=weights_sha256,
            images_per_chunk=settings.run.images_per_chunk,
            max_pixels=settings.run.max_pixels,
            threads_per_worker=settings.run.threads_per_worker,
            max_bytes=settings.run.max_bytes,
            mixed_lists=settings.run.mixed_lists,
            image_column=settings.run.image_column,
            depth=settings.image.depth,
            point_grid_sha256="" if point_grid is None else point_grid.sha256,
            point_grid_points=0 if point_grid is None else len(point_grid.points_xy_P2),
        )

    def named(self, *, version: int = PLAN_VERSION) -> dict[str, Any]:
        """Flat, under the names that a user types, JSON values only; those that a plan of this version has."""
        named: dict[str, Any] = {"source": self.source, "format": str(self.format)}
        for name, value in asdict(self.recipe).items():
            if value not in (None, False) or name not in _ONLY_IF_ASKED_FOR:
                named[f"recipe.{name}"] = _plain(value)
        for name in ("point_grid_sha256", "point_grid_points"):
            if getattr(self, name):
                named[f"recipe.{name}"] = getattr(self, name)
        named |= {"model.name": self.model_name, "model.precision": str(self.precision)}
        named["model.weights_sha256"] = self.weights_sha256
        known = {"family": self.model_family, "checkpoint_layout": self.checkpoint_layout}
        known |= {"checkpoint_notes": list(self.checkpoint_notes)}
        named |= {f"model.{name}": value for name, value in known.items() if value}
        for name in ("images_per_chunk", "max_pixels", "threads_per_worker", "max_bytes", "mixed_lists"):
            named[f"run.{name}"] = getattr(self, name)
        if self.image_column is not None:
            named["run.image_column"] = self.image_column
        if self.depth is not Depth.SCALE:
            named["image.depth"] = str(self.depth)
        return named if version > 3 else {name: named[name] for name in named if name not in _SINCE_VERSION_4}

    @classmethod
    def from_named(cls, named: Mapping[str, Any]) -> OutputSettings:
        given = [f.name for f in fields(Recipe) if f.name not in _ONLY_IF_ASKED_FOR or f"recipe.{f.name}" in named]
        recipe = {name: named[f"recipe.{name}"] for name in given}
        recipe["crop_rank"] = CropRank(recipe["crop_rank"])
        if "nodata" in recipe:
            recipe["nodata"] = tuple(recipe["nodata"])
        return cls(
            source=named["source"],
            format=Format(named["format"]),
            recipe=Recipe(**recipe),
            model_name=named["model.name"],
            precision=Precision(named["model.precision"]),
            weights_sha256=named["model.weights_sha256"],
            images_per_chunk=named["run.images_per_chunk"],
            max_pixels=named["run.max_pixels"],
            threads_per_worker=named["run.threads_per_worker"],
            max_bytes=named.get("run.max_bytes", RunSettings.max_bytes),
            mixed_lists=named.get("run.mixed_lists", RunSettings.mixed_lists),
            checkpoint_notes=tuple(named.get("model.checkpoint_notes", ())),
            model_family=named.get("model.family", ""),
            checkpoint_layout=named.get("model.checkpoint_layout", ""),
            image_column=named.get("run.image_column"),
            depth=Depth(named.get("image.depth", Depth.SCALE)),
            point_grid_sha256=named.get("recipe.point_grid_sha256", ""),
            point_grid_points=named.get("recipe.point_grid_points", 0),
        )


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, tuple):
        return list(cast("tuple[Any, ...]", value))
    return str(value) if isinstance(value, StrEnum) else value


FROZEN = frozenset(OutputSettings.of(Settings(), weights_sha256="").named()) | {
    *("run.image_column", "image.depth"),
    *(f"recipe.{name}" for name in _ONLY_IF_ASKED_FOR),
}
"""The names of the settings that stand in a plan, where everybody can read them."""


@dataclass(frozen=True)
class PlannedShard:
    """A shard with its place in the run. `members_sha256` has the hash of each piece of its member index."""

    shard: Shard
    first_ordinal: int
    members_sha256: tuple[str, ...]

    def chunk_size(self, images_per_chunk: int) -> int:
        """How many images its chunks have, but for the last. Those of a compressed tar have more than asked for: each
        is reached by unpacking all that comes before it."""
        if self.shard.kind != ShardKind.COMPRESSED_TAR:
            return images_per_chunk
        return max(images_per_chunk, min(-(-self.shard.member_count // UNPACKED_BY), LARGEST_OF_COMPRESSED))

    def chunk_count(self, images_per_chunk: int) -> int:
        return -(-self.shard.member_count // self.chunk_size(images_per_chunk))

    def chunks(self, images_per_chunk: int) -> Iterator[Chunk]:
        """In order."""
        count, size = self.shard.member_count, self.chunk_size(images_per_chunk)
        for index, start in enumerate(range(0, count, size)):
            yield Chunk(shard=self.shard.name, index=index, start=start, stop=min(start + size, count))


@dataclass(frozen=True)
class Plan:
    """One run, frozen."""

    settings: OutputSettings
    shards: tuple[PlannedShard, ...]
    id_base: int = 0
    """See ids.id_base."""
    ignored: tuple[Ignored, ...] = ()
    """Entries of the source that are not worked on, by kind."""
    versions: tuple[tuple[str, str], ...] = ()
    """Names and versions of what shapes the output, sorted; none if the plan is older than that."""
    version: int = PLAN_VERSION
    """Of the format in which this plan is kept, and hashed."""

    @cached_property
    def image_count(self) -> int:
        return sum(planned.shard.member_count for planned in self.shards)

    @cached_property
    def chunk_count(self) -> int:
        return sum(planned.chunk_count(self.settings.images_per_chunk) for planned in self.shards)

    @cached_property
    def annotation_stride(self) -> int:
        of = self.settings
        return annotation_stride(of.recipe, images=self.image_count, grid_points=of.point_grid_points)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(plan_to_json(self)).hexdigest()

    @cached_property
    def settings_sha256(self) -> str:
        return hashlib.sha256(canonical_json(self.settings.named(version=self.version))).hexdigest()

    @cached_property
    def _by_name(self) -> dict[str, PlannedShard]:
        return {planned.shard.name: planned for planned in self.shards}

    def planned(self, shard_name: str) -> PlannedShard:
        return self._by_name[shard_name]

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk, in plan order."""
        for planned in self.shards:
            yield from planned.chunks(self.settings.images_per_chunk)


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that is hashed."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def plan_to_json(plan: Plan) -> bytes:
    document: dict[str, Any] = {
        "schema_version": plan.version,
        "settings": plan.settings.named(version=plan.version),
        "settings_sha256": plan.settings_sha256,
        "images": plan.image_count,
        "id_base": plan.id_base,
        "shards": [asdict(planned) for planned in plan.shards],
    }
    if plan.version > 2:
        document["ignored"] = [asdict(each) for each in plan.ignored]
    if plan.version > 3:
        document["versions"] = dict(plan.versions)
    return json.dumps(document, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def plan_from_json(data: bytes, *, uri: str) -> Plan:
    """raises ConfigError naming `uri` if this is no plan that this version can read, or one that nobody planned."""
    try:
        document = json.loads(data)
        version = document["schema_version"]
        if version not in READABLE_VERSIONS:
            raise ConfigError(
                f"{uri} has plan version {version}, this Maskmill reads {READABLE_VERSIONS[0]} to {PLAN_VERSION}; "
                "finish that run with the version that began it, or choose another out="
            )
        shards = tuple(
            PlannedShard(
                shard=Shard(**entry["shard"]),
                first_ordinal=entry["first_ordinal"],
                members_sha256=tuple(entry["members_sha256"]),
            )
            for entry in document["shards"]
        )
        ignored = tuple(Ignored(**each) for each in document.get("ignored", ()))
        settings = OutputSettings.from_named(document["settings"])
        plan = Plan(
            settings=settings,
            shards=shards,
            id_base=document["id_base"],
            ignored=ignored,
            versions=tuple(sorted(document["versions"].items())) if version > 3 else (),
            version=version,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{uri} is not a plan of Maskmill ({error!r}); choose another out=") from error
    check_shards([(each.shard, each.members_sha256) for each in shards], source=settings.source, plan_uri=uri)
    return plan
