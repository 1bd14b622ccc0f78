"""The manifest: what a finished run holds, recounted from its parts.

Owns the listing of data/, the recount and the two objects that are written last. Counts what is in the store, never
what a worker said.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ContractError, NotFoundError, StorageError
from pipeline.output.card import put_card
from pipeline.plan.layout import PART_SUFFIX, data_uri, manifest_uri, part_name, part_uri, success_uri
from pipeline.plan.plan import Plan
from pipeline.records import Chunk, Status
from pipeline.storage.parts import count_part
from pipeline.storage.store import Store
from pipeline.storage.uris import absolute, relative_key

MANIFEST_VERSION = 1
COUNT_THREADS = 4


@dataclass(frozen=True, slots=True)
class CountedPart:
    """One part as it lies in the store. `failures` counts the rows that are not ok, by status."""

    name: str
    size: int
    sha256: str
    rows: int
    masks: int
    failures: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """A complete run: one part per planned chunk, in plan order."""

    plan_sha256: str
    parts: tuple[CountedPart, ...]

    @property
    def images(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def masks(self) -> int:
        return sum(part.masks for part in self.parts)

    @property
    def failures(self) -> dict[str, int]:
        """By status, the most frequent first."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.failures)
        return dict(total.most_common())


@dataclass(frozen=True)
class FoundParts:
    """What lies below data/: the ids of the chunks whose part is there, and the names of files that are not this run's.

    A part counts only at its own place: a copy of it in a folder below data/ is not of this run.
    """

    committed: set[str]
    foreign: list[str]


def find_parts(plan: Plan, *, out: str, store: Store) -> FoundParts:
    """By one listing."""
    folder, suffix = absolute(data_uri(out)), PART_SUFFIX[plan.settings.format]
    try:
        names = {relative_key(folder, info.uri) for info in store.list(folder)}
    except NotFoundError:
        names = set[str]()
    planned = {chunk.chunk_id for chunk in plan.chunks()} if names else set[str]()
    there = {name.removesuffix(suffix) for name in names if name.endswith(suffix)} & planned
    return FoundParts(there, sorted(names - {chunk_id + suffix for chunk_id in there}))


def count_parts(plan: Plan, *, out: str, store: Store) -> Manifest:
    """Read every part and count its rows.

    raises  StorageError if a part is gone or does not hold its chunk's rows
    """

    def count(chunk: Chunk) -> CountedPart:
        return _count(chunk, plan, out=out, store=store)

    with ThreadPoolExecutor(COUNT_THREADS) as pool:
        parts = tuple(pool.map(count, plan.chunks()))
    manifest = Manifest(plan_sha256=plan.sha256, parts=parts)
    if manifest.images != plan.image_count:
        raise ContractError(f"{out}: {plan.image_count} images planned, {manifest.images} rows counted")
    return manifest


def _count(chunk: Chunk, plan: Plan, *, out: str, store: Store) -> CountedPart:
    uri = part_uri(out, plan, chunk)
    data = store.read(uri)
    part = count_part(data, format=plan.settings.format, name=uri)
    planned_rows, of_plan = chunk.stop - chunk.start, part.metadata.get("plan_sha256", "unknown")
    if part.rows != planned_rows or of_plan != plan.sha256:
        raise StorageError(
            f"{uri} holds {part.rows} rows of plan {of_plan[:12]}, expected {planned_rows} of {plan.sha256[:12]}: "
            "something else wrote it; delete it and repeat the command"
        )
    failures = {status: count for status, count in sorted(part.statuses.items()) if status != Status.OK}
    return CountedPart(
        name=part_name(plan, chunk),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=part.rows,
        masks=part.masks,
        failures=failures,
    )


def publish(manifest: Manifest, *, out: str, store: Store) -> None:
    """manifest.json, the dataset card, then _SUCCESS. Harmless if another driver was first, or if a lost part was made
    again: the same plan gives the same parts.

    raises  StorageError if the manifest that is there says other things of the parts
    """
    uri, document = manifest_uri(out), manifest_to_json(manifest)
    if not store.put_if_absent(uri, document):
        theirs = _read_manifest(uri, store)
        before = {part.name: part for part in theirs.parts}
        changed = [part.name for part in manifest.parts if before.get(part.name) != part]
        if changed or theirs.plan_sha256 != manifest.plan_sha256:
            raise StorageError(
                f"{uri} says other things of {len(changed)} parts than what lies in {data_uri(out)} "
                f"({', '.join(changed[:5])}): they were made again, on another class of device or by another version. "
                "Put the old parts back, or accept the new ones by deleting manifest.json and _SUCCESS; then repeat "
                "the command"
            )
    put_card(out, store, images=manifest.images, masks=manifest.masks, failures=manifest.failures)
    store.put_if_absent(success_uri(out), b"")


def find_manifest(plan: Plan, *, out: str, store: Store) -> Manifest | None:
    """The manifest of a finished run; None if _SUCCESS is not there yet."""
    try:
        store.head(success_uri(out))
        manifest = _read_manifest(manifest_uri(out), store)
    except NotFoundError:
        return None
    if manifest.plan_sha256 != plan.sha256:
        raise StorageError(f"{manifest_uri(out)} is of another plan; delete it and _SUCCESS and repeat the command")
    return manifest


def _read_manifest(uri: str, store: Store) -> Manifest:
    """raises  NotFoundError; StorageError if it is no manifest"""
    try:
        document: dict[str, Any] = json.loads(store.read(uri))
        parts = tuple(CountedPart(**entry) for entry in document["parts"])
        return Manifest(plan_sha256=document["plan_sha256"], parts=parts)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{uri} is damaged ({error!r}); delete it and _SUCCESS and repeat the command") from error


def manifest_to_json(manifest: Manifest) -> bytes:
    document = {
        "schema_version": MANIFEST_VERSION,
        "plan_sha256": manifest.plan_sha256,
        "images": manifest.images,
        "masks": manifest.masks,
        "failures": manifest.failures,
        "parts": [asdict(part) for part in manifest.parts],
    }
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"
