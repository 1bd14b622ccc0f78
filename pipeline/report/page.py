"""The page of a report: one HTML file that needs nothing but itself, with the totals, a gallery, figures and tables.

Owns what a reader sees, and that the file stays below 20 MB whatever the output is: lists end where nobody reads on,
and say how much they leave out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.look.html import render
from pipeline.look.plots import WIDE, Interval, Plot, intervals, plot
from pipeline.records import Status
from pipeline.report import published
from pipeline.report.charts import charts_of
from pipeline.report.gallery import ShownImage
from pipeline.report.records import Failure, Group, Grouping, Report
from pipeline.texts import counted, shortened

MOST_FAILURES, MOST_BROKEN, MOST_GROUPS, MOST_COLUMNS = 40, 40, 100, 20
"""Lines of one list on the page."""
LONGEST = 300
"""Characters of a name or a reason."""
MOST_DRAWN = 30
"""Groups in one drawing."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """images   of the gallery
    read     parts that they come from
    missing  why there are none; empty if there are some
    """

    images: Sequence[ShownImage]
    read: int
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    name: str
    value: str
    note: str
    alarming: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The least and the greatest of what is shown, rounded outwards: where the sliders of the filters end."""

    iou: tuple[float, float]
    stability: tuple[float, float]
    area: tuple[float, float]
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """The numbers of a group as text."""

    name: str
    images: str
    masks: str
    mean: str
    interval: str


@dataclass(frozen=True, slots=True)
class ShownGrouping:
    column: str
    said: str
    level: str
    groups: tuple[ShownGroup, ...]
    drawn: Plot
    alt: str


def page(report: Report, gallery: Gallery) -> str:
    """The same report and the same gallery give the same page."""
    scope = report.scope
    return render(
        "pipeline.report",
        "report",
        out=_text(report.out),
        scope=scope,
        said=_totals_said(report),
        tiles=list(_tiles(report)),
        sections=list(_sections(report)),
        images=gallery.images,
        gallery_said=_gallery_said(report, gallery),
        limits=_limits(gallery.images),
        charts=[(chart, chart.draw and plot(chart.draw, chart.size)) for chart in charts_of(report)],
        figures_said=_figures_said(report),
        groupings=[_grouping(each) for each in report.groupings[:MOST_COLUMNS]],
        failures=[_failure(each) for each in report.failures[:MOST_FAILURES]],
        failures_said=_failures_said(report),
        broken=[_text(sentence) for sentence in report.broken[:MOST_BROKEN]] + _and_more(report.broken, MOST_BROKEN),
        broken_count=len(report.broken),
        scope_rows=list(_scope_rows(report)),
        beside=list(_beside(report)),
        provenance=[(_text(name), _text(value)) for name, value in report.provenance.items()],
    )


def _tiles(report: Report) -> Iterator[Tile]:
    images, ok = sum(report.statuses.values()), report.statuses.get(Status.OK, 0)
    failed, overlap = images - ok, report.overlap
    yield Tile("Images", f"{ok:,}", "without a failure")
    yield Tile("Masks", f"{report.masks:,}", "in the parts that were counted")
    average = f"on average; SA-1B has {published.MASKS_PER_IMAGE.low:.0f}"
    yield Tile("Masks per image", f"{report.masks / ok:.1f}" if ok else "none", average)
    of_all = f"{failed / images:.2%} of {counted(images, 'image')}" if failed else f"of {counted(images, 'image')}"
    yield Tile("Failed images", f"{failed:,}", of_all, alarming=failed > 0)
    if overlap.images:
        measured = counted(overlap.images, "image")
        yield Tile("Coverage", f"{overlap.mean_coverage:.0%}", f"of the pixels, mean of {measured}")
        pairs = f"pairs of masks with an IoU above {overlap.duplicate_iou:g}"
        within = f"in {overlap.images_with_near_duplicates:,} of {measured}"
        yield Tile("Near duplicates", f"{overlap.near_duplicates:,}", f"{pairs}, {within}")


def _sections(report: Report) -> Iterator[tuple[str, str]]:
    yield "gallery", "Gallery"
    yield "figures", "Figures"
    if report.groupings:
        yield "groups", "Groups"
    if report.failures or report.broken:
        yield "failures", "Failures"
    yield "scope", "Scope and provenance"


def _totals_said(report: Report) -> str:
    scope = report.scope
    if scope.parts_counted == scope.parts_committed:
        return "The totals count every committed part."
    return f"The totals count {scope.parts_counted:,} of the committed parts."


def _figures_said(report: Report) -> str:
    scope = report.scope
    made_of = f"{counted(scope.images_sampled, 'image')} with {counted(scope.masks_sampled, 'mask')}"
    if scope.whole:
        which = f"The figures are of every committed part: {made_of}."
    else:
        which = (
            f"The figures are of {scope.parts_sampled:,} of {counted(scope.parts_committed, 'committed part')}, "
            f"sampled with seed {scope.seed}: {made_of}."
        )
    return f"{which} The filter funnel is of all parts that could be counted."


def _gallery_said(report: Report, gallery: Gallery) -> str:
    if not gallery.images:
        return f"No image is shown: {_text(gallery.missing)}."
    return (
        f"{counted(len(gallery.images), 'image')} with masks, sampled with seed {report.scope.seed} from "
        f"{counted(gallery.read, 'part')}. Open one to see each mask with its scores, its box and its prompt point."
    )


def _failures_said(report: Report) -> str:
    more = len(report.failures) - MOST_FAILURES
    said = f"{counted(sum(each.count for each in report.failures), 'image')} of the sampled parts failed, by reason."
    return f"{said} {counted(more, 'rarer reason')} are left out." if more > 0 else said


def _failure(failure: Failure) -> Failure:
    examples = tuple(_text(name) for name in failure.examples)
    return Failure(_text(failure.status), _text(failure.reason), failure.count, examples)


def _scope_rows(report: Report) -> Iterator[tuple[str, str]]:
    scope = report.scope
    yield "images planned", f"{scope.images_planned:,}"
    yield "parts planned", f"{scope.parts_planned:,}"
    yield "parts committed", f"{scope.parts_committed:,}"
    yield "parts in the totals", f"{scope.parts_counted:,}"
    yield "parts in the figures", f"{scope.parts_sampled:,}"
    yield "images in the figures", f"{scope.images_sampled:,}"
    yield "masks in the figures", f"{scope.masks_sampled:,}"
    yield "seed", str(scope.seed)
    for status, count in report.statuses.items():
        yield f"images {_text(status)}", f"{count:,}"


def _beside(report: Report) -> Iterator[tuple[str, str, str, str]]:
    """Ours, SA-1B's, and where that was published."""
    ok = report.statuses.get(Status.OK, 0)
    for each, ours in (
        (published.IMAGES, f"{ok:,}"),
        (published.MASKS, f"{report.masks:,}"),
        (published.MASKS_PER_IMAGE, f"{report.masks / ok:.1f}" if ok else "none"),
    ):
        yield each.what, ours, f"{each.low:,.0f}", each.source
    of_groups = published.MASKS_PER_IMAGE_OF_GROUPS
    means = [group.masks_per_image for grouping in report.groupings for group in grouping.groups]
    ours = f"{min(means):.1f} to {max(means):.1f}" if means else "no groups were given"
    yield of_groups.what, ours, f"{of_groups.low:.0f} to {of_groups.high:.0f}", of_groups.source


def _grouping(grouping: Grouping) -> ShownGrouping:
    """The largest groups first."""
    groups = sorted(grouping.groups, key=lambda each: (-each.images, each.name))
    left_out = len(groups) - MOST_GROUPS
    said = (
        f"Images that are ok, by their value in this column. {counted(grouping.ungrouped_images, 'image')} of this "
        f"output have none, and {counted(grouping.unmatched_rows, 'row')} of the table name no image of it. The "
        "intervals are of the mean."
    )
    if left_out > 0:
        said += f" {counted(left_out, 'smaller group')} are left out."
    level = f"{100 * grouping.level:g}%"
    shown = tuple(map(_group, groups[:MOST_GROUPS]))
    drawn = groups[:MOST_DRAWN]
    alt = f"Masks per image with {level} intervals of {counted(len(drawn), 'group')}, the largest first"
    return ShownGrouping(_text(grouping.column), said, level, shown, _drawn(drawn), alt)


def _drawn(groups: Sequence[Group]) -> Plot:
    rows = [
        Interval(_text(each.name), each.masks_per_image, None if math.isnan(each.interval[0]) else each.interval)
        for each in groups
    ]
    return plot(intervals(rows, x="masks per image"), (WIDE[0], 0.8 + 0.28 * len(rows)))


def _group(group: Group) -> ShownGroup:
    known = not math.isnan(group.interval[0])
    return ShownGroup(
        name=_text(group.name),
        images=f"{group.images:,}",
        masks=f"{group.masks:,}",
        mean=f"{group.masks_per_image:.1f}",
        interval=f"{group.interval[0]:.1f} to {group.interval[1]:.1f}" if known else "unknown",
    )


def _limits(images: Sequence[ShownImage]) -> Limits:
    ious, stabilities, areas, layers = [0.0, 1.0], [0.0, 1.0], [0.01, 1.0], {0}
    masks = [(image, mask.about.split()) for image in images for mask in image.masks]
    if masks:
        ious = [float(about[0]) for _, about in masks]
        stabilities = [float(about[1]) for _, about in masks]
        areas = [max(1, int(about[2])) / (image.size[0] * image.size[1]) for image, about in masks]
        layers = {int(about[3]) for _, about in masks}
    return Limits(_rounded(ious), _rounded(stabilities), (min(areas), max(areas)), tuple(sorted(layers)))


def _rounded(values: Sequence[float]) -> tuple[float, float]:
    """To hundredths, and apart. A damaged part may hold values that are no numbers."""
    numbers = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = math.floor(100 * min(numbers)), math.ceil(100 * max(numbers))
    return low / 100, max(high, low + 1) / 100


def _and_more(told: Sequence[str], most: int) -> list[str]:
    more = len(told) - most
    return [f"and {more:,} more"] if more > 0 else []


def _text(text: str) -> str:
    return shortened(text, LONGEST)
