"""What a report says of an output, as numbers; the border between counting and drawing.

Nothing here is computed. `collect` fills a `Report`; the charts and the page show it.
Legend: B bins, X Y cells of the heat map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import ConfigError
from pipeline.records import Funnel


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """How much is measured, and which. Numbers of the totals and of the groups are of all committed parts anyway."""

    images: int = 20_000
    """Whole parts are sampled until they hold about so many images; the figures are of these."""
    seed: int = 0
    """Another one samples others."""
    overlap_images: int = 2_000
    """Images of the sampled parts, at most, of which coverage, depth and near-duplicates are measured."""
    concavity_masks_per_size: int = 5_000
    """Masks of the sampled parts whose concavity is measured, at most, in each bin of relative size."""
    duplicate_iou: float = 0.9
    """Two masks of one image with an IoU above this are near-duplicates."""

    def __post_init__(self) -> None:
        for name in ("images", "overlap_images", "concavity_masks_per_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"report.{name}={getattr(self, name)} must be 1 or more")
        if not 0.5 <= self.duplicate_iou < 1:
            raise ConfigError(f"report.duplicate_iou={self.duplicate_iou} must be at least 0.5 and below 1")


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges. A bin has its lower edge and not its upper one; the last bin has both.

    edges   B + 1, rising
    counts  B
    below, above  values outside of the edges
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0

    @property
    def total(self) -> int:
        return sum(self.counts) + self.below + self.above


@dataclass(frozen=True, slots=True)
class Scope:
    """What the numbers were made of.

    images_planned   of the run
    parts_planned    of the run
    parts_committed  parts that are there
    parts_counted    parts whose rows, masks and funnel are in the totals
    parts_sampled    parts whose masks are in the figures
    images_sampled   images of these parts that are `ok`
    masks_sampled    their masks
    seed             the choice follows from it
    """

    images_planned: int
    parts_planned: int
    parts_committed: int
    parts_counted: int
    parts_sampled: int
    images_sampled: int
    masks_sampled: int
    seed: int

    @property
    def finished(self) -> bool:
        return self.parts_committed == self.parts_planned

    @property
    def whole(self) -> bool:
        """The figures are of every committed part."""
        return self.parts_sampled == self.parts_committed


@dataclass(frozen=True, slots=True)
class Failure:
    """Images of the sampled parts that failed in one way. `examples` are names, a few.

    reason  the sentence of their rows; where these differ only in numbers and in the image's own name, N and … stand
            for them
    """

    status: str
    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin with a name, such as 11-50 masks."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class CentreMap:
    """How many masks have their centre where, on the image stretched to a square: [Y][X], top left first.

    The centre of a mask is that of its box.
    """

    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Concavity:
    """1 - area / area of the convex hull, of masks that were drawn by size so that data sets can be compared.

    The hull is that of the pixels' centres, and its area the number of pixels with a centre in it.

    size_edges      of the bins of relative size, sqrt(mask area / image area)
    drawn_per_size  masks measured out of each of these bins
    """

    histogram: Histogram
    size_edges: tuple[float, ...]
    drawn_per_size: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """How the masks of an image lie to one another, of images that were drawn for it.

    images           measured
    coverage         share of each image's pixels under at least one mask
    mean_coverage    over images
    depth            masks over each covered pixel, counted as share of covered pixels: label -> share
    near_duplicates  pairs of masks of one image with an IoU above `duplicate_iou`
    images_with_near_duplicates
    """

    images: int
    coverage: Histogram
    mean_coverage: float
    depth: Mapping[str, float]
    duplicate_iou: float
    near_duplicates: int
    images_with_near_duplicates: int


@dataclass(frozen=True, slots=True)
class Group:
    """Images that share a value of one column; of these those that are `ok`.

    interval  of the mean of masks per image, by the normal approximation: mean +- z s / sqrt(n), with the standard
              deviation s of the sample; two NaN for a single image, which says nothing of the spread
    """

    name: str
    images: int
    masks: int
    masks_per_image: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Grouping:
    """One column of the user's table.

    unmatched_rows    rows of the table that name no image of this output
    ungrouped_images  images that are `ok` and have no value here: the table does not name them, or leaves it empty
    level             of the intervals, such as 0.95
    """

    column: str
    groups: tuple[Group, ...]
    unmatched_rows: int
    ungrouped_images: int
    level: float


@dataclass(frozen=True)
class Report:
    """All that is counted.

    statuses        rows by status, of the counted parts
    masks           of the counted parts
    failures        the most frequent first
    provenance      what it was made with: name -> value, in the order in which it is shown
    funnel          of the counted parts; None if none of them says it
    layers          masks per crop layer
    outputs         masks per output of the model
    broken          a sentence for each part that could not be used
    """

    out: str
    scope: Scope
    statuses: Mapping[str, int]
    masks: int
    failures: tuple[Failure, ...]
    provenance: Mapping[str, str]
    funnel: Funnel | None
    layers: Mapping[int, int]
    outputs: Mapping[int, int]
    predicted_iou: Histogram
    stability: Histogram
    masks_per_image: tuple[Bin, ...]
    relative_size: Histogram
    centres: CentreMap
    concavity: Concavity
    overlap: Overlap
    groupings: tuple[Grouping, ...] = ()
    broken: tuple[str, ...] = field(default=())
