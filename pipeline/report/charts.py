"""The charts of a report: what each says in a sentence, how its numbers are defined, and the numbers themselves.

Owns the words. `plots` draws. Every chart has its numbers as a table too, for whoever cannot see it or copies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate, pairwise

from pipeline.look.plots import NARROW, WIDE, Draw, Mark, bars, cells, log_steps, lying, steps
from pipeline.records import Funnel
from pipeline.report import published
from pipeline.report.records import Bin, CentreMap, Histogram, Report
from pipeline.texts import counted

FUNNEL_WORDS = {
    "low_predicted_iou": "predicted IoU too low",
    "low_stability": "stability too low",
    "at_crop_edge": "at the edge of a crop",
    "duplicate_in_crop": "duplicate in a crop",
    "duplicate_across_crops": "duplicate across crops",
    "too_small": "too small",
    "duplicate_after_clean": "duplicate after clean-up",
    "too_large": "too large",
}
MOST_BARS = 16
"""More layers or outputs than a model has; a damaged part may say anything."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a chart is called and how its numbers are made.

    key   its anchor
    x     what its bins are of
    unit  what is counted in them, with an s
    """

    key: str
    title: str
    x: str
    unit: str
    definition: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure of the page.

    alt         what it says, in words
    head, rows  its numbers as a table
    draw        None if there is nothing to draw
    size        of the drawing
    """

    words: Words
    alt: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    draw: Draw | None
    size: tuple[float, float] = NARROW


def charts_of(report: Report) -> list[Chart]:
    """In the order in which they are shown. A report without a funnel has no chart of it."""
    overlap, concavity = report.overlap, report.concavity
    measured = _counted(overlap.images, "images")
    return [
        *([_funnel(report.funnel)] if report.funnel else []),
        _named(MASKS_PER_IMAGE, report.masks_per_image),
        _histogram(_relative_size(), report.relative_size),
        _histogram(_concavity(sum(concavity.drawn_per_size), len(concavity.drawn_per_size)), concavity.histogram),
        _histogram(PREDICTED_IOU, report.predicted_iou, _threshold(published.LEAST_PREDICTED_IOU)),
        _histogram(STABILITY, report.stability, _threshold(published.LEAST_STABILITY)),
        _histogram(_coverage(measured, overlap.mean_coverage), overlap.coverage),
        _depth(overlap.depth, measured),
        _centres(report.centres),
        _named(LAYERS, _numbered("layer", report.layers)),
        _named(OUTPUTS, _numbered("output", report.outputs)),
    ]


MASKS_PER_IMAGE = Words(
    "masks-per-image",
    "Masks per image",
    "masks in an image",
    "images",
    "Images that are ok, by how many masks they have. The bins are those of the SA-1B paper, whose images have "
    f"{published.MASKS_PER_IMAGE.low:.0f} masks on average.",
)
PREDICTED_IOU = Words(
    "predicted-iou",
    "Predicted IoU",
    "predicted IoU",
    "masks",
    "The model's own estimate of a mask's IoU with what it should be. It may exceed 1. The line is SA-1B's threshold.",
)
STABILITY = Words(
    "stability",
    "Stability score",
    "stability score",
    "masks",
    "The IoU of the two masks that a higher and a lower cut-off would give. The line is SA-1B's threshold.",
)
LAYERS = Words(
    "layers",
    "Masks per crop layer",
    "crop layer",
    "masks",
    "Layer 0 is the whole image, and layer n has 2^n x 2^n crops.",
)
OUTPUTS = Words(
    "outputs",
    "Masks per output of the model",
    "output",
    "masks",
    "The model answers each prompt with several masks, its outputs.",
)


def _relative_size() -> Words:
    definition = "The square root of a mask's area divided by its image's area. The vertical axis is logarithmic."
    return Words(
        "relative-size", "Relative size of masks", "square root of the share of the image", "masks", definition
    )


def _concavity(measured: int, sizes: int) -> Words:
    definition = (
        "1 - a mask's area divided by the area of its convex hull; a disc or a box has 0. Of "
        f"{_counted(measured, 'masks')}, drawn evenly over {_counted(sizes, 'bins')} of relative size, so that data "
        "sets whose masks have other sizes can be compared."
    )
    return Words("concavity", "Concavity", "concavity", "masks", definition)


def _coverage(measured: str, mean: float) -> Words:
    definition = f"The share of an image's pixels under at least one mask, of {measured}. The mean is {mean:.1%}."
    return Words("coverage", "Coverage", "share of the pixels under a mask", "images", definition)


def _funnel(funnel: Funnel) -> Chart:
    removed = [(each.name, getattr(funnel, each.name)) for each in fields(Funnel)[1:-1]]
    left = [*accumulate((-count for _, count in removed), initial=funnel.candidates), funnel.kept]
    labels = ["candidates", *(FUNNEL_WORDS[name] for name, _ in removed), "kept"]
    lost = [0, *(count for _, count in removed), 0]
    texts = [f"{funnel.candidates:,}", *(f"-{count:,}" if count else "0" for _, count in removed), f"{funnel.kept:,}"]
    most, count = max(removed, key=lambda each: each[1])
    alt = f"Of {_counted(funnel.candidates, 'candidates')} {_share(funnel.kept, funnel.candidates)} were kept."
    if count:
        alt += f" Most were removed as {FUNNEL_WORDS[most]}: {_share(count, funnel.candidates)}."
    return Chart(
        Words(
            "funnel",
            "Filter funnel",
            "step",
            "candidates",
            "How many candidate masks each step removed, in the order of the steps. The strong bar is what is left "
            "after a step, and the pale one what the step took away.",
        ),
        alt,
        ("step", "removed", "left after it", "left of all"),
        tuple(
            (label, f"{gone:,}", f"{rest:,}", _share(rest, funnel.candidates))
            for label, gone, rest in zip(labels, lost, left, strict=True)
        ),
        lying(labels, left, lost, texts) if funnel.candidates else None,
        WIDE,
    )


def _numbered(word: str, counts: Mapping[int, int]) -> list[Bin]:
    return [Bin(f"{word} {number}", count) for number, count in sorted(counts.items())[:MOST_BARS]]


def _named(words: Words, bins: Sequence[Bin]) -> Chart:
    total = sum(each.count for each in bins)
    most = max(bins, key=lambda each: each.count, default=None)
    alt = f"No {words.unit}."
    if most is not None and total:
        is_in = f"have {most.label} masks" if words is MASKS_PER_IMAGE else f"are of {most.label}"
        alt = f"{_share(most.count, total)} of the {words.unit} {is_in}."
    shares = [_share(each.count, total) for each in bins]
    heights = [each.count / max(1, total) for each in bins]
    return Chart(
        words,
        alt,
        (words.x, words.unit, "share"),
        tuple((each.label, f"{each.count:,}", share) for each, share in zip(bins, shares, strict=True)),
        bars([each.label for each in bins], heights, shares, x=words.x, y=f"of the {words.unit}") if total else None,
    )


def _threshold(least: published.Published) -> Mark:
    return Mark(least.low, f"SA-1B: {least.low:g}")


def _histogram(words: Words, found: Histogram, mark: Mark | None = None) -> Chart:
    total, unit = found.total, words.unit
    rows = [
        (_between(low, high), f"{count:,}", _share(count, total))
        for (low, high), count in zip(pairwise(found.edges), found.counts, strict=True)
    ]
    if found.below:
        rows.insert(0, (f"below {found.edges[0]:g}", f"{found.below:,}", _share(found.below, total)))
    if found.above:
        rows.append((f"above {found.edges[-1]:g}", f"{found.above:,}", _share(found.above, total)))
    shares = [count / max(1, total) for count in found.counts]
    drawn_as = log_steps if words.key == "relative-size" else partial(steps, mark=mark)
    return Chart(
        words,
        _median(found, unit),
        (words.x, unit, "share"),
        tuple(rows),
        drawn_as(found.edges, shares, x=words.x, y=f"of the {unit}") if any(found.counts) else None,
    )


def _depth(depth: Mapping[str, float], measured: str) -> Chart:
    most = max(depth, key=lambda label: depth[label], default="")
    definition = f"How many masks lie over a covered pixel, as shares of all covered pixels of {measured}."
    words = Words("depth", "Overlap depth", "masks over a pixel", "covered pixels", definition)
    texts = [f"{share:.1%}" for share in depth.values()]
    return Chart(
        words,
        f"{depth[most]:.1%} of the covered pixels lie under {most} mask{'s' * (most != '1')}."
        if any(depth.values())
        else "No covered pixels.",
        (words.x, "share of the covered pixels"),
        tuple(zip(depth, texts, strict=True)),
        bars(
            [label.replace(" or more", "+") for label in depth],
            list(depth.values()),
            texts,
            x=words.x,
            y="of the covered pixels",
        )
        if any(depth.values())
        else None,
    )


def _centres(centres: CentreMap) -> Chart:
    """The table has ninths: nobody reads a thousand cells."""
    counts, total = centres.counts, sum(map(sum, centres.counts))
    ninths = [[0] * 3 for _ in range(3)]
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            ninths[3 * y // len(counts)][3 * x // len(row)] += count
    definition = (
        "Where in the image the centres of the masks' boxes are, every image stretched to a square. The stronger the "
        "colour, the more masks. The table has the nine fields of a grid of 3 x 3."
    )
    return Chart(
        Words("centres", "Where masks are", "", "masks", definition),
        f"{_share(ninths[1][1], total)} of the masks have their centre in the middle ninth." if total else "No masks.",
        ("share of the masks", "left", "middle", "right"),
        tuple(
            (name, *(_share(count, total) for count in row))
            for name, row in zip(("top", "middle", "bottom"), ninths, strict=True)
        ),
        cells(counts) if total else None,
    )


def _median(found: Histogram, unit: str) -> str:
    """Between which edges half of what was found is reached."""
    total, seen = found.total, found.below
    if not total:
        return f"No {unit}."
    if 2 * seen >= total:
        return f"Half of the {unit} are below {found.edges[0]:g}."
    for (low, high), count in zip(pairwise(found.edges), found.counts, strict=True):
        seen += count
        if 2 * seen >= total:
            return f"The median of {_counted(total, unit)} lies between {low:.4g} and {high:.4g}."
    return f"Half of the {unit} are above {found.edges[-1]:g}."


def _between(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}"


def _counted(count: int, unit: str) -> str:
    """`unit` has an s at its end."""
    return counted(count, unit.removesuffix("s"))


def _share(count: int, total: int) -> str:
    """Never 0% or 100% for what is not none or all."""
    if not total:
        return "none"
    share = count / total
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 < share < 1 else f"{share:.1%}"
