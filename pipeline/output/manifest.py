"""The manifest: what a finished run holds, part by part.

Owns the listing of data/ and the two objects that are written last. How the parts come to be counted is finish.py's.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import NotFoundError, StorageError
from pipeline.output.card import CardCounts, drop_unedited_card, put_card
from pipeline.plan.layout import PART_SUFFIX, data_uri, manifest_uri, success_uri
from pipeline.plan.plan import Plan
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import absolute, relative_key
from pipeline.texts import counted

MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class CountedPart:
    """One part: its bytes, and what is in them. `failures` counts the rows that are not ok, by status."""

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


def list_data(out: str, store: Store) -> dict[str, ObjectInfo]:
    """What lies below data/, by its name there."""
    folder = absolute(data_uri(out))
    try:
        return {relative_key(folder, info.uri): info for info in store.list(folder)}
    except NotFoundError:
        return {}


def find_parts(plan: Plan, *, out: str, store: Store) -> FoundParts:
    """By one listing."""
    suffix = PART_SUFFIX[plan.settings.format]
    names = set(list_data(out, store))
    planned = {chunk.chunk_id for chunk in plan.chunks()} if names else set[str]()
    there = {name.removesuffix(suffix) for name in names if name.endswith(suffix)} & planned
    return FoundParts(there, sorted(names - {chunk_id + suffix for chunk_id in there}))


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
                f"{uri} says other things of {counted(len(changed), 'part')} than what lies in {data_uri(out)} "
                f"({', '.join(changed[:5])}): they were made again, on another class of device or by another version. "
                "Put the old parts back, or accept the new ones by deleting manifest.json and _SUCCESS; then repeat "
                "the command"
            )
    size = sum(part.size for part in manifest.parts)
    put_card(out, store, CardCounts(manifest.images, manifest.masks, len(manifest.parts), size, manifest.failures))
    store.put_if_absent(success_uri(out), b"")


def unpublish(*, out: str, store: Store) -> None:
    """The run is not finished any more, as far as a reader can see. Its parts stay, and so does a card that was edited.
    _SUCCESS goes first."""
    store.delete(success_uri(out))
    drop_unedited_card(out, store)
    store.delete(manifest_uri(out))


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
