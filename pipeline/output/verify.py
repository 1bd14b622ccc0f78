"""A run's output, counted again from its parts alone: is everything there once, whole, and as planned?

Owns the checks. Believes the plan, whose hash is in every part, and nothing that a worker or a driver reported. One
part per thread is in memory at a time; of the images only their ids are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from pipeline.errors import ChangedError, ConfigError, NotFoundError, StorageError
from pipeline.output.manifest import CountedPart, find_manifest, find_parts
from pipeline.plan.layout import part_name, part_uri, plan_uri
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.other_versions import recorded_versions
from pipeline.plan.plan import Plan, PlannedShard
from pipeline.plan.planning import load_plan
from pipeline.plan.versions import Versions, differing
from pipeline.progress import Progress, Standing
from pipeline.records import Chunk, ImageRow, Mask, Member, Status
from pipeline.storage.parts import Part, read_part
from pipeline.storage.store import Store

THREADS = 2
"""Parts checked at once: one waits for the store while another is decoded."""
WINDOW_IMAGES = 4096
"""Images whose plan is in memory at once."""
SHOWN_PER_PART = 5
"""Problems told of one part; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that should not be. `where` is a part's name or another object below OUT."""

    where: str
    what: str


@dataclass
class Verification:
    """What was found. Sound means: nothing is wrong; finished means: nothing is left to do."""

    plan: Plan
    parts: int = 0
    images: Counter[str] = field(default_factory=Counter[str])
    """By status."""
    masks: int = 0
    other_versions: Counter[str] = field(default_factory=Counter[str])
    """Parts that were made by other versions than the plan's, as somebody has allowed: what differs."""
    published: bool = False
    """There is a manifest and _SUCCESS."""
    problems: list[Problem] = field(default_factory=list[Problem])

    def add(self, part: CheckedPart) -> None:
        self.parts += 1
        self.images.update(part.statuses)
        self.masks += part.masks
        self.problems += part.problems
        self.other_versions.update(part.other_versions)

    @property
    def finished(self) -> bool:
        return self.parts == self.plan.chunk_count and self.published


def verify_output(out: str, store: Store, progress: Progress) -> Verification:
    """Check everything below OUT; a run that is still going on is checked as far as it is.

    raises  ConfigError if there is no plan, hence no run, at OUT
            StorageError if the store cannot be read
    """
    plan = load_plan(out, store=store)
    if plan is None:
        raise ConfigError(f"{out} holds no run: there is no {plan_uri(out)}")
    found = Verification(plan)
    stated = {part.name: part for part in _manifest(out, store, found)}
    present = _present(out, store, found)
    index, allowed = MemberIndex(plan, out=out, store=store), recorded_versions(out, store)
    ids = [np.zeros(0, np.int64)]
    for planned in plan.shards:
        for chunks in _windows(planned, plan.settings.images_per_chunk):
            start = chunks[0].start
            members = _members(index, planned, chunks, found)
            if members is None:
                break
            ids.append(np.array([member.image_id for member in members], np.int64))
            own = {chunk.chunk_id: members[chunk.start - start : chunk.stop - start] for chunk in chunks}

            def check(chunk: Chunk, own: Mapping[str, list[Member]] = own) -> CheckedPart:
                name = part_name(plan, chunk)
                data = store.read(part_uri(out, plan, chunk))
                return check_part(data, own[chunk.chunk_id], plan, name=name, stated=stated.get(name), allowed=allowed)

            there = [chunk for chunk in chunks if chunk.chunk_id in present]
            with ThreadPoolExecutor(THREADS) as pool:
                for part in pool.map(check, there):
                    found.add(part)
                    progress.show(_standing(found))
    _check_ids(ids, found)
    return found


def _standing(found: Verification) -> Standing:
    images = found.images.total()
    return Standing(
        images_done=images,
        images_total=found.plan.image_count,
        counted=images,
        masks=found.masks,
        failed=images - found.images[Status.OK],
        workers_ready=0,
        workers_wanted=0,
    )


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """One part's counts and what is wrong with it."""

    statuses: dict[str, int]
    masks: int
    problems: tuple[Problem, ...]
    other_versions: tuple[str, ...] = ()


def check_part(
    data: bytes,
    members: Sequence[Member],
    plan: Plan,
    *,
    name: str,
    stated: CountedPart | None,
    allowed: Sequence[Versions] = (),
) -> CheckedPart:
    """A part's bytes against the members that were planned for it and, in a finished run, the manifest's entry.

    allowed  versions that may have made it beside those of the plan
    """
    try:
        part = read_part(data, format=plan.settings.format, name=name)
    except StorageError as error:
        return CheckedPart({}, 0, (Problem(name, str(error)),))
    others = _other_versions(part, plan)
    unknown = [what for what, versions in others.items() if versions not in allowed]
    whats = [*_against_manifest(data, part, stated), *_against_plan(part, members, plan)]
    whats += [f"other versions than the plan's made it: {what}" for what in unknown]
    shown = whats[:SHOWN_PER_PART]
    if len(whats) > len(shown):
        shown.append(f"and {len(whats) - len(shown)} more of the kind")
    statuses = Counter(str(row.status) for row in part.rows)
    return CheckedPart(
        statuses=dict(statuses),
        masks=sum(len(row.masks) for row in part.rows),
        problems=tuple(Problem(name, what) for what in shown),
        other_versions=tuple(what for what in others if what not in unknown),
    )


def _against_manifest(data: bytes, part: Part, stated: CountedPart | None) -> Iterator[str]:
    if stated is None:
        return
    if (len(data), hashlib.sha256(data).hexdigest()) != (stated.size, stated.sha256):
        yield f"{len(data)} bytes whose checksum is not the manifest's ({stated.size} bytes, {stated.sha256[:12]})"
    if (len(part.rows), sum(len(row.masks) for row in part.rows)) != (stated.rows, stated.masks):
        yield f"the manifest has {stated.rows} rows and {stated.masks} masks of it"


def _other_versions(part: Part, plan: Plan) -> dict[str, Versions]:
    """Versions that made rows of the part and are not the plan's, by what differs. An old plan has none to compare."""
    if not plan.versions:
        return {}
    try:
        made_by: list[Versions] = [dict(each) for each in json.loads(part.metadata.get("versions", "[{}]"))]
    except (ValueError, TypeError):
        made_by = [{}]
    planned = dict(plan.versions)
    return {differing(planned, versions): versions for versions in made_by if versions != planned}


def _against_plan(part: Part, members: Sequence[Member], plan: Plan) -> Iterator[str]:
    of_plan = part.metadata.get("plan_sha256", "no plan")
    if of_plan != plan.sha256:
        yield f"it is a part of {of_plan[:12]}, not of this plan, {plan.sha256[:12]}"
    if len(part.rows) != len(members):
        yield f"{len(part.rows)} rows, but {len(members)} images were planned"
    for row, member in zip(part.rows, members, strict=False):
        yield from _against_member(row, member, plan)


def _against_member(row: ImageRow, member: Member, plan: Plan) -> Iterator[str]:
    if (row.image_id, row.file_name, row.source) != (member.image_id, member.key, member.uri):
        yield f"a row of image {row.image_id} ({row.file_name}) where {member.image_id} ({member.key}) was planned"
    if row.status is not Status.OK and (row.masks or not row.error):
        yield f"image {row.image_id} is {row.status} with {len(row.masks)} masks and the reason {row.error!r}"
    first = member.ordinal * plan.annotation_stride + 1
    if row.masks and (row.first_annotation_id != first or len(row.masks) > plan.annotation_stride):
        yield f"image {row.image_id} has annotation ids from {row.first_annotation_id}, expected from {first}"
    for number, mask in enumerate(row.masks):
        if problem := _of_mask(mask, row):
            yield f"mask {number} of image {row.image_id}: {problem}"


def _of_mask(mask: Mask, row: ImageRow) -> str:
    """Empty if the run lengths fill the image and have the area and the box that are stated."""
    # Here, because it brings numba, half a second of a driver that only words what others have found.
    from pipeline.masks.rle import rle_problem

    return rle_problem(mask.counts, (row.height, row.width), area=mask.area, bbox_xywh=mask.bbox_xywh)


def _manifest(out: str, store: Store, found: Verification) -> tuple[CountedPart, ...]:
    try:
        manifest = find_manifest(found.plan, out=out, store=store)
    except StorageError as error:
        found.problems.append(Problem("_job/manifest.json", str(error)))
        return ()
    found.published = manifest is not None
    return manifest.parts if manifest is not None else ()


def _present(out: str, store: Store, found: Verification) -> set[str]:
    """Ids of the chunks whose part is there. Any other file below data/ is a problem: globs would read it."""
    parts = find_parts(found.plan, out=out, store=store)
    found.problems += [Problem(f"data/{name}", "no part of this run") for name in parts.foreign]
    if found.published:
        gone = [chunk for chunk in found.plan.chunks() if chunk.chunk_id not in parts.committed]
        found.problems += [Problem(part_name(found.plan, chunk), "planned and published, but gone") for chunk in gone]
    return parts.committed


def _windows(planned: PlannedShard, images_per_chunk: int) -> Iterator[list[Chunk]]:
    """A shard's chunks, a few thousand images at a time."""
    chunks = planned.chunks(images_per_chunk)
    while window := list(islice(chunks, max(1, WINDOW_IMAGES // planned.chunk_size(images_per_chunk)))):
        yield window


def _members(
    index: MemberIndex, planned: PlannedShard, chunks: Sequence[Chunk], found: Verification
) -> list[Member] | None:
    """The members of consecutive chunks; None, and a problem, if the frozen index is not what was planned."""
    try:
        return index.read(planned.shard.name, chunks[0].start, chunks[-1].stop)
    except (NotFoundError, ChangedError, ConfigError) as error:
        what = f"the member index is gone, or not what was planned; the parts from here on were not checked ({error})"
        found.problems.append(Problem(planned.shard.name, what))
        return None


def _check_ids(ids: Sequence[npt.NDArray[np.int64]], found: Verification) -> None:
    """Image ids are unique over the run; annotation ids follow from the ordinals, which were checked row by row."""
    ordered = np.sort(np.concatenate(ids))
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(twice):
        found.problems.append(Problem("_job/members", f"{len(twice)} image ids occur twice: {twice[:5].tolist()}"))
