"""Totals of every committed part: rows by status, masks, the funnel, and masks per image of groups.

A part is looked at, not read: its end if it is Parquet, its table of contents if it is a tar. There it says of which
plan it is and what its filters did. How many masks and failures it has is taken from the manifest or, in a run that is
not finished, from what its writer wrote down; only where nobody knows, or images are grouped, more is read of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.errors import StorageError
from pipeline.output.committed import OF_ONE_PART, Committed, part_problem
from pipeline.output.manifest import CountedPart, find_manifest
from pipeline.output.summaries import borne_out, read_summaries
from pipeline.output.threads import in_threads
from pipeline.plan.layout import part_name
from pipeline.records import Funnel, Status
from pipeline.storage.columns import ImageColumns, open_columns
from pipeline.storage.ranged import RangedFile
from pipeline.storage.store import Store

THREADS = 8


@dataclass
class Totals:
    """Added up over the parts that could be looked at.

    usable  numbers of these among the committed chunks, in order
    broken  a sentence for each other one, by its number
    made_by spelling of the versions that a part says -> how many parts
    """

    statuses: Counter[str] = field(default_factory=Counter[str])
    masks: int = 0
    funnel: Funnel | None = None
    usable: list[int] = field(default_factory=list[int])
    broken: dict[int, str] = field(default_factory=dict[int, str])
    made_by: Counter[str] = field(default_factory=Counter[str])


def count_totals(
    there: Committed,
    store: Store,
    *,
    with_images: Callable[[ImageColumns], object] | None = None,
    show: Callable[[int, int], object],
) -> Totals:
    """One part after the other, in any order.

    with_images  is given the rows of each part; without it they are not read where that can be spared
    show         is told how many parts of how many are counted
    """
    known = _known(there, store)

    def look(number: int) -> _Glance:
        name = part_name(there.plan, there.chunks[number])
        try:
            return _look(number, there, store, known.get(name), grouped=with_images is not None)
        except OF_ONE_PART as error:
            return _Glance(number, problem=str(error))

    totals = Totals()
    for done, glance in enumerate(in_threads(look, range(len(there.chunks)), threads=THREADS), start=1):
        _add(glance, totals)
        if with_images and glance.images and not glance.problem:
            with_images(glance.images)
        show(done, len(there.chunks))
    totals.usable.sort()
    return totals


@dataclass(frozen=True, slots=True, eq=False)
class _Glance:
    """What is seen of one part. `images` are its rows, if they were read."""

    number: int
    problem: str = ""
    statuses: Mapping[str, int] = field(default_factory=dict[str, int])
    masks: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    images: ImageColumns | None = None


def _look(number: int, there: Committed, store: Store, known: CountedPart | None, *, grouped: bool) -> _Glance:
    chunk = there.chunks[number]
    name = part_name(there.plan, chunk)
    part = open_columns(RangedFile(there.info(chunk), store), format=there.plan.settings.format, name=name)
    problem = part_problem(chunk, there.plan, rows=part.rows, metadata=part.metadata)
    if problem:
        return _Glance(number, problem)
    if known is not None and not grouped:
        return _Glance(number, "", _statuses(known), known.masks, part.metadata)
    images = part.images()
    return _Glance(number, "", Counter(images.status_I), int(images.masks_I.sum()), part.metadata, images)


def _statuses(part: CountedPart) -> dict[str, int]:
    return {str(Status.OK): part.rows - sum(part.failures.values()), **part.failures}


def _add(glance: _Glance, totals: Totals) -> None:
    if glance.problem:
        totals.broken[glance.number] = glance.problem
        return
    totals.usable.append(glance.number)
    totals.statuses.update(glance.statuses)
    totals.masks += glance.masks
    totals.made_by[glance.metadata.get("versions", "")] += 1
    funnel = _funnel(glance.metadata)
    if funnel is not None:
        totals.funnel = (totals.funnel or Funnel()) + funnel


def _funnel(metadata: Mapping[str, str]) -> Funnel | None:
    try:
        return Funnel(**json.loads(metadata["funnel"]))
    except (KeyError, ValueError, TypeError):
        return None


def _known(there: Committed, store: Store) -> dict[str, CountedPart]:
    """Parts whose counts need not be read, by name. A damaged manifest is none: it costs the reading of parts."""
    try:
        manifest = find_manifest(there.plan, out=there.out, store=store)
    except StorageError:
        manifest = None
    if manifest is None:
        return borne_out(read_summaries(there.plan, out=there.out, store=store), there.listed, there.plan)
    sizes = {name: info.size for name, info in there.listed.items()}
    return {part.name: part for part in manifest.parts if sizes.get(part.name) == part.size}
