"""The numbers of a report, out of an output as it lies there.

Totals are of every committed part, the figures of a sample: whole parts, one out of each of equal stretches of the
output, until they hold about as many images as were asked for. The sample follows from the seed and from what is
committed. Parts are read one by one by a few threads and added up, so memory does not grow with the output. Nothing is
written.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.errors import ConfigError, DamagedError, StorageError
from pipeline.output.committed import OF_ONE_PART, Committed, find_committed, told
from pipeline.output.threads import in_threads
from pipeline.plan.layout import part_name
from pipeline.report.figures import Figures
from pipeline.report.groups import read_groups
from pipeline.report.provenance import provenance
from pipeline.report.records import Grouping, Report, ReportSettings, Scope
from pipeline.report.shapes import PartShare, Shapes
from pipeline.report.totals import Totals, count_totals
from pipeline.storage.columns import ImageColumns, MaskColumns, open_columns
from pipeline.storage.store import Store

THREADS = 4
"""Parts in memory at once. The reading waits for the store, and most of the counting is done without Python's lock."""

Show = Callable[[str, int, int], object]


def show_nothing(_what: str, _done: int, _of: int) -> None:
    """For callers that show no progress."""


def collect(out: str, store: Store, *, settings: ReportSettings, groups: str = "", show: Show = show_nothing) -> Report:
    """All that a report says of the output at `out`, finished or not.

    groups  a CSV or Parquet file that names images and gives them values; empty for none
    show    is told what is being done, and how many parts of how many are done

    raises  ConfigError if there is no run, no part that can be used, a store that cannot be read, or no such table
    """
    try:
        there = find_committed(out, store)
        grouped = read_groups(groups, store) if groups else None
        with_images = grouped.count if grouped else None
        totals = count_totals(there, store, with_images=with_images, show=lambda done, of: show("counting", done, of))
        if not totals.usable:
            raise ConfigError(f"{out}: none of its {len(there.chunks):,} parts can be used{told(_broken(totals))}")
        groupings = grouped.groupings() if grouped else ()
        sampled = spread(totals.usable, there, settings)
        measured, damaged = _measure(sampled, there, store, settings, lambda done, of: show("measuring", done, of))
        totals.broken |= damaged
    except StorageError as error:
        raise ConfigError(f"{out} cannot be read: {error}") from error
    return _report(there, totals, measured, groupings, settings)


def spread(usable: Sequence[int], there: Committed, settings: ReportSettings) -> list[int]:
    """Numbers of the parts whose masks are measured: one of each of equally long stretches of those that are usable."""
    images = sum(there.chunks[number].stop - there.chunks[number].start for number in usable)
    count = min(len(usable), -(-settings.images * len(usable) // images))
    edges = [len(usable) * each // count for each in range(count + 1)]
    dice = random.Random(settings.seed)
    return [usable[dice.randrange(low, high)] for low, high in pairwise(edges)]


@dataclass
class Measured:
    """What the sampled parts gave, added up.

    parts  that could be used
    """

    figures: Figures
    shapes: Shapes
    parts: int = 0

    @classmethod
    def none(cls, there: Committed, settings: ReportSettings) -> Measured:
        return cls(Figures(there.plan.settings.recipe), Shapes(settings))

    def add(self, other: Measured) -> None:
        self.figures.add(other.figures)
        self.shapes.add(other.shapes)
        self.parts += 1


def _measure(
    sampled: Sequence[int], there: Committed, store: Store, settings: ReportSettings, show: Callable[[int, int], object]
) -> tuple[Measured, dict[int, str]]:
    """And a sentence for each part that turns out to be damaged, which is left out."""
    all_parts = Measured.none(there, settings)

    def measure(share: PartShare) -> tuple[int, Measured | str]:
        try:
            images, masks = _read(share, there, store)
            own = Measured.none(there, settings)
            own.figures.count(share.number, images, masks)
            own.shapes.count(share, images, masks, all_parts.shapes.limits())
        except OF_ONE_PART as error:
            return share.number, str(error)
        return share.number, own

    broken: dict[int, str] = {}
    shares = list(_shares(sampled, there, settings))
    for done, (number, own) in enumerate(in_threads(measure, shares, threads=THREADS), start=1):
        if isinstance(own, str):
            broken[number] = own
        else:
            all_parts.add(own)
        show(done, len(sampled))
    return all_parts, broken


def _shares(sampled: Sequence[int], there: Committed, settings: ReportSettings) -> Iterator[PartShare]:
    """Equal numbers of images of each part, as far as that goes."""
    edges = [settings.overlap_images * each // len(sampled) for each in range(len(sampled) + 1)]
    for number, (low, high) in zip(sampled, pairwise(edges), strict=True):
        yield PartShare(number, part_name(there.plan, there.chunks[number]), high - low)


def _read(share: PartShare, there: Committed, store: Store) -> tuple[ImageColumns, MaskColumns]:
    info, name = there.info(there.chunks[share.number]), share.name
    part = open_columns(io.BytesIO(store.read(info.uri, etag=info.etag)), format=there.plan.settings.format, name=name)
    images, masks = part.images(), part.masks()
    if images.masks_I.sum() != len(masks.area_N):
        raise DamagedError(f"{name} is damaged (its rows have {images.masks_I.sum()} masks, not {len(masks.area_N)})")
    return images, masks


def _broken(totals: Totals) -> tuple[str, ...]:
    return tuple(sentence for _, sentence in sorted(totals.broken.items()))


def _report(
    there: Committed, totals: Totals, measured: Measured, groupings: tuple[Grouping, ...], settings: ReportSettings
) -> Report:
    figures, shapes = measured.figures, measured.shapes
    scope = Scope(
        images_planned=there.plan.image_count,
        parts_planned=there.plan.chunk_count,
        parts_committed=len(there.chunks),
        parts_counted=len(totals.usable),
        parts_sampled=measured.parts,
        images_sampled=figures.images,
        masks_sampled=figures.masks,
        seed=settings.seed,
    )
    return Report(
        out=there.out,
        scope=scope,
        statuses=dict(totals.statuses.most_common()),
        masks=totals.masks,
        failures=figures.failures(),
        provenance=provenance(there.plan, totals.made_by),
        funnel=totals.funnel,
        layers=dict(sorted(figures.layers.items())),
        outputs=dict(sorted(figures.outputs.items())),
        predicted_iou=figures.predicted_iou.histogram(),
        stability=figures.stability.histogram(),
        masks_per_image=figures.bins(),
        relative_size=figures.sizes.histogram(),
        centres=figures.centres(),
        concavity=shapes.concavity(),
        overlap=shapes.overlap(),
        groupings=groupings,
        broken=_broken(totals),
    )
