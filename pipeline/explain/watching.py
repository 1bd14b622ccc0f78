"""An observer of the generator that keeps what pictures need: every score, and a few candidates of each fate.

Owns which candidates are kept: those nearest to their threshold, on both sides, because they show what it decides.
Candidates below the threshold of predicted IoU are not in the run: their crop is prompted once more for them.
Legend: N candidates, K those that stay, w h low-resolution cells (transposed).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.explain.records import PromptedCrop
from pipeline.masks.arrays import Flags, Integers
from pipeline.masks.candidates import Candidates
from pipeline.masks.crops import Crop
from pipeline.masks.filters import stability_scores
from pipeline.masks.measure import measure_masks
from pipeline.masks.nms import winners
from pipeline.masks.observer import Among, Prompted
from pipeline.masks.rle import Rle
from pipeline.masks.segmenter import cells_on_host
from pipeline.masks.trace import UntracedMask
from pipeline.settings import Recipe

EXAMPLES = 6
"""Pictures of one kind."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A candidate that may become a picture. The mask is in its crop's frame."""

    mask: UntracedMask | Rle
    crop: Crop | None
    point_xy: tuple[float, float]
    predicted_iou: float
    stability: float = math.nan

    def traced(self, hw: tuple[int, int], *, cut: float = 0.0) -> Rle:
        """In the image's frame: the pixels above `cut`, if its logits are still there."""
        rle = (
            self.mask
            if isinstance(self.mask, Rle)
            else UntracedMask(self.mask.logits_wh - cut, self.mask.upscaling).traced()
        )
        return rle if self.crop is None else rle.pasted(at_xy=self.crop.box_xyxy[:2], frame_hw=hw)


@dataclass(frozen=True, slots=True)
class Beaten:
    """A duplicate, what it is a duplicate of, and the IoU of their boxes."""

    loser: Kept
    winner: Kept
    iou: float


@dataclass
class Nearest:
    """The few items with the lowest distances that were offered; of equal ones the first."""

    most: int = EXAMPLES
    _heap: list[tuple[float, int, Any]] = field(default_factory=list[tuple[float, int, Any]])
    _number: Any = field(default_factory=lambda: count(0, -1))

    def wants(self, distance: float) -> bool:
        return len(self._heap) < self.most or -distance > self._heap[0][0]

    def offer(self, distance: float, item: Any) -> None:
        heapq.heappush(self._heap, (-distance, next(self._number), item))
        if len(self._heap) > self.most:
            heapq.heappop(self._heap)

    @property
    def items(self) -> list[Any]:
        return [item for _, _, item in sorted(self._heap, key=lambda each: each[:2], reverse=True)]


@dataclass
class Watcher:
    """See `Observer`. `removed` counts by the names of the funnel's fields."""

    recipe: Recipe
    crops: list[PromptedCrop] = field(default_factory=list[PromptedCrop])
    candidates: int = 0
    removed: Counter[str] = field(default_factory=Counter[str])
    changed: int = 0
    kept: int = 0
    predicted_iou: list[npt.NDArray[np.float64]] = field(default_factory=list[npt.NDArray[np.float64]])
    stability: list[npt.NDArray[np.float64]] = field(default_factory=list[npt.NDArray[np.float64]])
    box_iou: dict[Among, list[float]] = field(default_factory=lambda: {among: [] for among in Among})
    examples: dict[str, Nearest] = field(default_factory=dict[str, Nearest])

    def prompted(self, batch: Prompted) -> None:
        x0, y0 = batch.crop.box_xyxy[:2]
        points = tuple((x + x0, y + y0) for x, y in batch.points_xy_P2.tolist())
        if self.crops and self.crops[-1].crop == batch.crop:
            points = self.crops.pop().points + points
        self.crops.append(PromptedCrop(batch.crop, points))
        self._watch_predicted_iou(batch)
        self._watch_stability(batch)

    def _watch_predicted_iou(self, batch: Prompted) -> None:
        """Of all candidates, by asking for them again without a threshold."""
        every = batch.segmenter.decode(batch.encoded, batch.points_xy_P2, pred_iou_thresh=-math.inf)
        slot_N, logits_Nwh = cells_on_host(every, batch.upscaling)
        iou_N = every.predicted_iou_PM.flatten().cpu().numpy()[slot_N]
        low_N = ~np.isin(slot_N, batch.live.slot_N)
        self.candidates += len(slot_N)
        self.removed["low_predicted_iou"] += int(low_N.sum())
        self.predicted_iou.append(iou_N.astype(np.float64))
        for n in np.argsort(-iou_N, kind="stable").tolist():
            distance = abs(float(iou_N[n]) - self.recipe.pred_iou_thresh)
            nearest = self._nearest("low_predicted_iou" if low_N[n] else "above_predicted_iou")
            if nearest.wants(distance):
                mask = UntracedMask(logits_Nwh[n].copy(), batch.upscaling)
                nearest.offer(distance, Kept(mask, batch.crop, _point(batch, int(slot_N[n])), float(iou_N[n])))

    def _watch_stability(self, batch: Prompted) -> None:
        """Exact ones of all: the run stops counting where a mask is certain to be unstable."""
        slot_N, logits_Nwh = cells_on_host(batch.predictions, batch.upscaling)
        offset, iou_N = self.recipe.stability_score_offset, batch.live.predicted_iou_N
        measures = measure_masks(logits_Nwh, batch.upscaling, offset=offset, least_score=0.0)
        stability_N = stability_scores(measures.tight_N, measures.loose_N)
        self.stability.append(stability_N.astype(np.float64))
        self.removed["low_stability"] += int((~batch.stable_N).sum())
        at_edge_N = batch.stable_N & batch.edge_N
        self.removed["at_crop_edge"] += int(at_edge_N.sum())
        for n, stable in enumerate(batch.stable_N.tolist()):
            score = float(stability_N[n])
            fates = {"above_stability" if stable else "low_stability": abs(score - self.recipe.stability_score_thresh)}
            if at_edge_N[n]:
                fates["at_crop_edge"] = -float(iou_N[n])
            for fate, distance in fates.items():
                if self._nearest(fate).wants(distance):
                    mask = UntracedMask(logits_Nwh[n].copy(), batch.upscaling)
                    point = _point(batch, int(slot_N[n]))
                    self._nearest(fate).offer(distance, Kept(mask, batch.crop, point, float(iou_N[n]), score))

    def deduplicated(
        self, among: Among, found: Candidates[Any], order_N: Integers, kept_K: Integers, iou_thresh: float
    ) -> None:
        """One pair of each of a few equal ranges between the threshold and an IoU of 1, the lowest there."""
        beaten = winners(found.box_xyxy_N4, order_N, kept_K, iou_thresh=iou_thresh)
        self.removed[f"duplicate_{among}"] += len(beaten)
        for loser, (winner, iou) in beaten.items():
            self.box_iou[among].append(iou)
            part = int((iou - iou_thresh) / max(1 - iou_thresh, 1e-9) * EXAMPLES)
            nearest = self._nearest(f"duplicate_{among} {min(part, EXAMPLES - 1)}", most=1)
            if nearest.wants(iou):
                pasted = among is Among.AFTER_CLEAN
                beaten_one, better = (_kept(found, place, pasted=pasted) for place in (loser, winner))
                nearest.offer(iou, Beaten(beaten_one, better, iou))

    def cleaned(self, before: Candidates[Rle], after: tuple[Rle, ...], large_N: Flags) -> None:
        self.removed["too_small"] += int((~large_N).sum())
        for n, (mask, cleaned) in enumerate(zip(before.masks, after, strict=True)):
            if large_N[n] and cleaned is mask:
                continue
            fate = "changed" if large_N[n] else "too_small"
            self.changed += bool(large_N[n])
            nearest, distance = self._nearest(fate), -float(abs(mask.area - cleaned.area) if large_N[n] else mask.area)
            if nearest.wants(distance):
                nearest.offer(distance, (_kept(before, n, pasted=True), cleaned))

    def sized(self, found: Candidates[Rle], large_N: Flags) -> None:
        self.removed["too_large"] += int(large_N.sum())
        self.kept = len(found) - int(large_N.sum())
        for n in np.flatnonzero(large_N).tolist():
            if self._nearest("too_large").wants(0.0):
                self._nearest("too_large").offer(0.0, _kept(found, n, pasted=True))

    def _nearest(self, fate: str, *, most: int = EXAMPLES) -> Nearest:
        return self.examples.setdefault(fate, Nearest(most))

    def of(self, fate: str) -> list[Any]:
        """What was kept of a fate, the nearest to the threshold first."""
        return self.examples[fate].items if fate in self.examples else []

    def pairs(self, among: Among) -> list[Beaten]:
        """By rising IoU."""
        return [pair for part in range(EXAMPLES) for pair in self.of(f"duplicate_{among} {part}")]


def _point(batch: Prompted, slot: int) -> tuple[float, float]:
    x, y = batch.points_xy_P2[slot // batch.segmenter.outputs_per_prompt].tolist()
    return x + batch.crop.box_xyxy[0], y + batch.crop.box_xyxy[1]


def _kept(found: Candidates[Any], n: int, *, pasted: bool) -> Kept:
    x0, y0, x1, y1 = found.crop_xyxy_N4[n].tolist()
    x, y = found.point_xy_N2[n].tolist()
    crop = None if pasted else Crop((x0, y0, x1, y1), int(found.layer_N[n]))
    return Kept(found.masks[n], crop, (x, y), float(found.predicted_iou_N[n]), float(found.stability_N[n]))
