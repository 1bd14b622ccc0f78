"""A few images of an output, spread over it: which parts are read, and which of their rows are shown.

Owns the choice. It follows from the seed, the plan and what is committed. Reads one listing and a few parts, however
large the output is, and holds one part at a time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pipeline.errors import ConfigError, StorageError
from pipeline.output.committed import find_committed, planned_part, told
from pipeline.output.labelled import images_of_chunk
from pipeline.plan.layout import part_name
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import Plan
from pipeline.records import Chunk, ImageRow, Status
from pipeline.storage.member_bytes import ByteRange
from pipeline.storage.parts import Part
from pipeline.storage.store import Store
from pipeline.texts import counted

SPREAD = 4
"""Parts that the sample comes from, if all of them have enough images with masks."""
PARTS_PER_IMAGE = 2
"""No more parts than this are read for each image that is asked for. Only parts with few or no masks need so many."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A row with masks, and where the bytes of its image lay when it was planned.

    place   None if that is not known; `why` says why
    """

    row: ImageRow
    place: ByteRange | None
    why: str = ""


@dataclass
class Sample:
    """Images in the order of the plan, and what was seen on the way to them.

    committed  parts that are there, of the plan's
    read       parts that were read
    broken     a sentence for each of these that could not be used
    """

    out: str
    plan: Plan
    seed: int
    committed: int
    read: int = 0
    images: list[Sampled] = field(default_factory=list[Sampled])
    broken: list[str] = field(default_factory=list[str])


def sample_images(out: str, store: Store, *, images: int, seed: int) -> Sample:
    """Up to `images` images that have masks; fewer if the parts that were read have no more.

    raises  ConfigError if there is no run, no committed part or no mask to show
            StorageError if the store cannot be read
    """
    there = find_committed(out, store)
    plan, chunks = there.plan, there.chunks
    sample = Sample(out, plan, seed, len(chunks))
    chosen = _chosen(chunks, sample, store, images=images, dice=random.Random(seed))
    _check_any(chosen, sample)
    sample.images = list(_placed(sorted(chosen, key=lambda each: each[:2]), chunks, sample, store))
    return sample


Chosen = tuple[int, int, ImageRow]
"""The number of a chunk among those that are there, and a row of its part with the row's number."""


def _chosen(chunks: Sequence[Chunk], sample: Sample, store: Store, *, images: int, dice: random.Random) -> list[Chosen]:
    """An equal share of each part that is read, and more of some parts if others have less."""
    spread = min(SPREAD, images, len(chunks))
    share = -(-images // spread)
    ranked: list[tuple[int, Chosen]] = []
    found = 0
    for number in _order(len(chunks), dice)[: PARTS_PER_IMAGE * images]:
        if found >= images and sample.read >= spread:
            break
        part = _read(chunks[number], sample, store)
        usable = [
            (number, index, row)
            for index, row in enumerate(part.rows if part else ())
            if row.status is Status.OK and row.masks
        ]
        dice.shuffle(usable)
        found += min(share, len(usable))
        ranked += enumerate(usable[:images])
    return [chosen for _, chosen in sorted(ranked, key=lambda each: each[0])][:images]


def _order(count: int, dice: random.Random) -> list[int]:
    """Numbers below `count`, each once: first one of each of `SPREAD` stretches of equal length, then the rest."""
    edges = [count * each // SPREAD for each in range(SPREAD + 1)]
    first = [dice.randrange(low, high) for low, high in pairwise(edges) if low < high]
    taken = set(first)
    rest = [number for number in range(count) if number not in taken]
    dice.shuffle(first)
    dice.shuffle(rest)
    return first + rest


def _read(chunk: Chunk, sample: Sample, store: Store) -> Part | None:
    """None, and a sentence among the broken ones, if it is not this chunk's part."""
    sample.read += 1
    part = planned_part(chunk, sample.plan, out=sample.out, store=store)
    if isinstance(part, Part):
        return part
    sample.broken.append(part)
    return None


def _check_any(chosen: Sequence[Chosen], sample: Sample) -> None:
    if chosen:
        return
    if len(sample.broken) == sample.read:
        what = f"none of the {counted(sample.read, 'part')} read can be used"
    else:
        what = f"no image in the {counted(sample.read, 'part')} read has masks"
    more = "" if sample.read == sample.committed else f" (of {sample.committed:,}; another seed= reads others)"
    raise ConfigError(f"{sample.out}: {what}{more}{told(sample.broken)}")


def _placed(chosen: Sequence[Chosen], chunks: Sequence[Chunk], sample: Sample, store: Store) -> Iterator[Sampled]:
    index = MemberIndex(sample.plan, out=sample.out, store=store)
    for number, place, row in chosen:
        yield with_place(row, place, chunks[number], sample.plan, index=index, out=sample.out)


def with_place(row: ImageRow, number: int, chunk: Chunk, plan: Plan, *, index: MemberIndex, out: str) -> Sampled:
    """The row, which has this number in the part of `chunk`; without a place if that cannot be looked up.

    raises  ConfigError if the member index is not the one that was planned
    """
    try:
        planned = images_of_chunk(chunk, plan, index=index, out=out)[number]
    except StorageError as error:
        return Sampled(row, None, f"where it lies cannot be looked up: {error}")
    if planned.image_id == row.image_id:
        return Sampled(row, planned.image)
    name = part_name(plan, chunk)
    return Sampled(row, None, f"{name} has it where image {planned.image_id} was planned; make verify tells more")
