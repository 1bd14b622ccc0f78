"""What a comparison says of two outputs, as numbers; the border between counting and showing.

A is the reference: its masks vanish in B, and masks that only B has appear. Legend: K bins.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.comparison.outputs import Output, Place
from pipeline.masks.agreement import SAME_IOU, SIMILAR_IOU, Agreement, Pair, total
from pipeline.records import ImageRow

PARTNER_IOU = 0.5
"""IoU below which two masks are not partners: one has vanished, the other appeared. COCO's lowest threshold."""
IOU_EDGES = (PARTNER_IOU, 0.6, 0.7, 0.8, SIMILAR_IOU, 0.95, 0.99, SAME_IOU, 1.0)
NAMED = 5
"""Images that are named of each kind; the rest are counted."""


@dataclass
class Moves:
    """By how much a score is higher in B, of the pairs that show the same thing.

    The median is that of a histogram with 100 bins a decade, so it is right to 1.2 %, whatever the number of pairs.
    """

    pairs: int = 0
    sum: float = 0.0
    most: float = 0.0
    unmoved: int = 0
    _bins_K: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_DECADES * _PER_DECADE + 1, np.int64))

    def add(self, difference: float) -> None:
        self.pairs += 1
        self.sum += difference
        size = abs(difference)
        self.most = max(self.most, size)
        if size:
            place = (math.log10(size) + _DECADES - 1) * _PER_DECADE
            self._bins_K[int(min(max(place, 0), len(self._bins_K) - 1))] += 1
        else:
            self.unmoved += 1

    @property
    def mean(self) -> float:
        """With its sign."""
        return self.sum / self.pairs if self.pairs else 0.0

    @property
    def median(self) -> float:
        """Without signs: the middle of the bin in which it lies; 0 if half of the scores did not move."""
        if 2 * self.unmoved >= self.pairs:
            return 0.0
        bin_ = int(np.searchsorted(self._bins_K.cumsum() + self.unmoved, self.pairs / 2))
        return min(self.most, 10 ** ((bin_ + 0.5) / _PER_DECADE - _DECADES + 1))


_DECADES, _PER_DECADE = 10, 100
"""From 1e-9 to 10; differences below count as the former."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The masks of one image in both outputs.

    pairs     partners of any IoU above 0, identical ones first, then by falling IoU
    vanished  numbers of A's masks without a partner of PARTNER_IOU
    appeared  numbers of B's
    """

    agreement: Agreement
    pairs: tuple[Pair, ...]
    vanished: tuple[int, ...]
    appeared: tuple[int, ...]

    @property
    def difference(self) -> float:
        """0 for equal masks, 1 if none has a partner: what is missing to a mean IoU of 1 over the masks of both."""
        both = self.agreement.reference + self.agreement.count
        return 1 - 2 * sum(pair.iou for pair in self.pairs) / both if both else 0.0


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """An image that both outputs have masks of, or could have."""

    place_a: Place
    place_b: Place
    row_a: ImageRow
    row_b: ImageRow
    matched: Matched


@dataclass
class Images:
    """Which images were compared, and why others were not.

    by_bytes, by_name  in both outputs, joined by their hash, or by their names
    other_bytes        of those joined by name, with two hashes that differ
    only_a, only_b     in one of them
    other_size         ok in both, of two sizes
    other_status       (A's, B's) of images that are not ok in both
    compared           ok in both, of one size: the masks of these are counted
    equal              of these, those with the same masks and scores in the same order
    named              a few names of each kind
    """

    by_bytes: int = 0
    by_name: int = 0
    other_bytes: int = 0
    only_a: int = 0
    only_b: int = 0
    other_size: int = 0
    other_status: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    compared: int = 0
    equal: int = 0
    named: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    @property
    def both(self) -> int:
        return self.by_bytes + self.by_name

    def name(self, kind: str, file_name: str) -> None:
        names = self.named.setdefault(kind, [])
        if len(names) < NAMED:
            names.append(file_name)


@dataclass
class Masks:
    """The masks of all compared images.

    iou_bins  partners by their IoU, from each of IOU_EDGES to below the next; the last bin has the identical ones
    """

    agreement: Agreement = field(default_factory=lambda: total([]))
    vanished: int = 0
    appeared: int = 0
    images_changed: int = 0
    """Images of which a mask vanished or appeared."""
    iou_bins: list[int] = field(default_factory=lambda: [0] * len(IOU_EDGES))
    predicted_iou: Moves = field(default_factory=Moves)
    stability: Moves = field(default_factory=Moves)

    @property
    def difference(self) -> float:
        """As of one image; of all masks together."""
        reference, count = self.agreement.reference, self.agreement.count
        both = reference + count
        return 1 - 2 * self.agreement.mean_iou * reference / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Something that shapes masks and is not the same in both plans."""

    name: str
    a: str
    b: str


@dataclass
class Comparison:
    """All that is said. `most_different` are those with any difference, the most different first."""

    a: Output
    b: Output
    settings: list[Setting]
    images: Images = field(default_factory=Images)
    masks: Masks = field(default_factory=Masks)
    most_different: list[ComparedImage] = field(default_factory=list[ComparedImage])
