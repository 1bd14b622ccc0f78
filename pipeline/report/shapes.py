"""Figures for which masks are looked at run by run: how concave they are, and how those of an image lie to one another.

Owns which masks and images are drawn for it. The draw of a mask is a number that follows from the seed, its part and
its place there; the masks with the smallest numbers are the sample, in whatever order parts are read. So nothing but
numbers is kept of a mask that is drawn, and what is known to be too large is not measured.
Legend: B bins of size, D depths, I images, N masks, S masks drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import DamagedError
from pipeline.masks.hull import hull_areas
from pipeline.masks.overlap import insides_of, near_duplicates, pixels_by_depth
from pipeline.records import Status
from pipeline.report.figures import Floats, Integers, Tally, relative_sizes
from pipeline.report.records import Concavity, Overlap, ReportSettings
from pipeline.storage.columns import ImageColumns, MaskColumns

CONCAVITY_SIZE_EDGES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Each bin's masks have four times the area of the one before. The paper draws masks by size too (arXiv:2304.02643,
figure 6), and does not say in which bins."""
CONCAVITY_EDGES = tuple(step / 50 for step in range(51))
COVERAGE_EDGES = tuple(step / 20 for step in range(21))
DEEPEST = 8
_OF_MASKS, _OF_IMAGES = 0, 1
"""What a generator of random numbers is for; the same for both would tie one draw to the other."""


@dataclass(frozen=True, slots=True)
class PartShare:
    """A sampled part: its number among those that are committed, and of how many images the overlap is measured."""

    number: int
    name: str
    overlap_images: int


@dataclass
class Shapes:
    """Of the parts that were added so far.

    drawn_B  of each bin of size: the draws (first column, rising) and the concavities of its masks
    """

    settings: ReportSettings
    drawn_B: list[Floats] = field(default_factory=lambda: [np.zeros((0, 2)) for _ in CONCAVITY_SIZE_EDGES[1:]])
    coverages: list[float] = field(default_factory=list[float])
    pixel_D: Integers = field(default_factory=lambda: np.zeros(DEEPEST + 1, np.int64))
    near_duplicates: int = 0
    images_with_near_duplicates: int = 0

    def limits(self) -> tuple[float, ...]:
        """Of each bin: masks with a draw from here on are in no sample."""
        most = self.settings.concavity_masks_per_size
        return tuple(float(drawn_S2[-1, 0]) if len(drawn_S2) == most else 1.0 for drawn_S2 in self.drawn_B)

    def count(self, part: PartShare, images: ImageColumns, masks: MaskColumns, limits: Sequence[float]) -> None:
        """One part.

        limits  of all parts so far, at this time or earlier

        raises  DamagedError if a mask's run lengths are damaged
        """
        try:
            self._draw(part, images, masks, limits)
            self._lay(part, images, masks)
        except ValueError as error:
            raise DamagedError(
                f"{part.name} has a mask that cannot be read ({error}); make verify tells more"
            ) from error

    def add(self, other: Shapes) -> None:
        most = self.settings.concavity_masks_per_size
        for bin, theirs_S2 in enumerate(other.drawn_B):
            both_S2 = np.concatenate([self.drawn_B[bin], theirs_S2])
            self.drawn_B[bin] = both_S2[np.argsort(both_S2[:, 0], kind="stable")[:most]]
        self.coverages += other.coverages
        self.pixel_D += other.pixel_D
        self.near_duplicates += other.near_duplicates
        self.images_with_near_duplicates += other.images_with_near_duplicates

    def _draw(self, part: PartShare, images: ImageColumns, masks: MaskColumns, limits: Sequence[float]) -> None:
        most = self.settings.concavity_masks_per_size
        draw_N = np.random.default_rng([self.settings.seed, part.number, _OF_MASKS]).random(len(masks.area_N))
        size_N = relative_sizes(images, masks)
        bin_N = np.clip(np.searchsorted(CONCAVITY_SIZE_EDGES, size_N, side="right") - 1, 0, len(self.drawn_B) - 1)
        hw_N2 = np.repeat(np.stack([images.height_I, images.width_I], axis=1), images.masks_I, axis=0)
        for bin, limit in enumerate(limits):
            chosen_S = np.flatnonzero((bin_N == bin) & (draw_N < limit) & (masks.area_N > 0))
            chosen_S = chosen_S[np.argsort(draw_N[chosen_S], kind="stable")[:most]]
            hull_S = hull_areas(masks.packed, masks.start_N1[chosen_S], masks.start_N1[chosen_S + 1], hw_N2[chosen_S])
            concavity_S = 1 - masks.area_N[chosen_S] / np.maximum(hull_S, 1)
            self.drawn_B[bin] = np.stack([draw_N[chosen_S], concavity_S], axis=1)

    def _lay(self, part: PartShare, images: ImageColumns, masks: MaskColumns) -> None:
        usable_I = np.array(images.status_I) == str(Status.OK)
        usable_I &= images.width_I * images.height_I > 0
        dice = np.random.default_rng([self.settings.seed, part.number, _OF_IMAGES])
        stop_I = images.masks_I.cumsum()
        for row in np.sort(dice.permutation(np.flatnonzero(usable_I))[: part.overlap_images]).tolist():
            hw = int(images.height_I[row]), int(images.width_I[row])
            own = masks.start_N1[stop_I[row] - images.masks_I[row] : stop_I[row] + 1]
            insides = insides_of(masks.packed, own, hw)
            pixel_D = pixels_by_depth(insides, hw, deepest=DEEPEST)
            self.pixel_D += pixel_D
            self.coverages.append(1 - int(pixel_D[0]) / (hw[0] * hw[1]))
            pairs = near_duplicates(insides, self.settings.duplicate_iou)
            self.near_duplicates += int(pairs)
            self.images_with_near_duplicates += pairs > 0

    def concavity(self) -> Concavity:
        tally = Tally(CONCAVITY_EDGES)
        for drawn_S2 in self.drawn_B:
            tally.count(drawn_S2[:, 1])
        return Concavity(tally.histogram(), CONCAVITY_SIZE_EDGES, tuple(len(drawn_S2) for drawn_S2 in self.drawn_B))

    def overlap(self) -> Overlap:
        tally = Tally(COVERAGE_EDGES)
        tally.count(np.array(self.coverages))
        covered = int(self.pixel_D[1:].sum())
        labels = [*map(str, range(1, DEEPEST)), f"{DEEPEST} or more"]
        return Overlap(
            images=len(self.coverages),
            coverage=tally.histogram(),
            # A sum that is rounded once does not depend on the order of the images.
            mean_coverage=math.fsum(self.coverages) / max(1, len(self.coverages)),
            depth={
                label: int(pixels) / max(1, covered) for label, pixels in zip(labels, self.pixel_D[1:], strict=True)
            },
            duplicate_iou=self.settings.duplicate_iou,
            near_duplicates=self.near_duplicates,
            images_with_near_duplicates=self.images_with_near_duplicates,
        )
