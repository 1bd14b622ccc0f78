"""One crop: prompt its points, keep the good candidates, remove the duplicates among them.

Owns the order of these steps, the batches of points, and how long logits are held. Masks leave here as run lengths.
Legend: P points of a batch, N live masks of a batch, K chosen among them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from pipeline.masks.arrays import Points
from pipeline.masks.candidates import Candidates
from pipeline.masks.crops import Crop
from pipeline.masks.filters import at_crop_edge, predicted_iou_cut, stability_scores
from pipeline.masks.nms import best_first, box_nms
from pipeline.masks.observer import UNOBSERVED, Among, Observer, Prompted
from pipeline.masks.rle import Rle
from pipeline.masks.segmenter import Encoded, Predictions, Segmenter, ask, upscaling_of
from pipeline.masks.upscaling import Upscaling
from pipeline.masks.work import ON_CPU, MaskWork, Measured, Traced, work_for
from pipeline.records import Funnel
from pipeline.settings import Recipe


@dataclass(frozen=True, slots=True)
class Found:
    """What survives inside a crop, best predicted IoU first, and what became of every candidate so far."""

    candidates: Candidates[None]
    traced: Traced
    funnel: Funnel

    def arrived(self) -> Candidates[Rle]:
        """With their masks, for which it waits."""
        return self.candidates.with_masks(self.traced.arrived())

    @staticmethod
    def nothing() -> Found:
        """Of a crop without points."""
        return Found(Candidates.concatenate([]), ON_CPU.trace(()), Funnel())


@dataclass(frozen=True, slots=True)
class _Asked:
    """A batch of points of which a device may still work out the measures."""

    points_xy_P2: Points
    predictions: Predictions
    upscaling: Upscaling
    work: MaskWork
    measured: Measured


@dataclass(frozen=True, slots=True)
class CropSearch(Generic[Encoded]):
    """An encoded crop, where it lies in its image, its points in its own pixels, and how to search it."""

    image_hw: tuple[int, int]
    crop: Crop
    points_xy_P2: Points
    encoded: Encoded
    segmenter: Segmenter[Encoded]
    recipe: Recipe
    observer: Observer = UNOBSERVED

    def steps(self) -> Generator[None, None, Found]:
        """The search. It pauses where it would wait for a device, which may meanwhile be given other work.

        Of every stable candidate the logits are held until duplicates are known; on a CPU those of the cells that
        matter, 4 bytes a cell: at most 200 KiB of a 3:2 image in Segment Anything. Only survivors are made into masks.
        """
        size = self.segmenter.points_at_once or self.recipe.points_per_batch
        batches: list[tuple[Candidates[Any], Funnel]] = []
        work = ON_CPU
        for start in range(0, len(self.points_xy_P2), size):
            asked = self._ask(self.points_xy_P2[start : start + size])
            if asked.measured.on_its_way:
                yield
            work = asked.work
            batches.append(self._judge(asked))
            del asked  # its logits are not held while the next batch is decoded
        found = Candidates.concatenate([candidates for candidates, _ in batches])
        order, thresh = best_first(found.predicted_iou_N), self.recipe.box_nms_thresh
        kept_K = box_nms(found.box_xyxy_N4, order, iou_thresh=thresh)
        self.observer.deduplicated(Among.IN_CROP, found, order, kept_K, thresh)
        kept = found.take(kept_K)
        funnel = sum((funnel for _, funnel in batches), Funnel(duplicate_in_crop=len(found) - len(kept)))
        return Found(kept.with_masks((None,) * len(kept)), work.trace(kept.masks), funnel)

    def _ask(self, points_xy_P2: Points) -> _Asked:
        """Prompt one batch of points and begin to measure the masks."""
        cut, refine = predicted_iou_cut(self.recipe), self.recipe.use_m2m
        predictions = ask(self.segmenter, self.encoded, points_xy_P2, pred_iou_thresh=cut, refine=refine)
        upscaling = upscaling_of(predictions, self.segmenter, self.encoded)
        # A score that is lower by more than float32 can blur needs no exact value.
        least, offset = self.recipe.stability_score_thresh - 1e-4, self.recipe.stability_score_offset
        work = work_for(predictions)
        measured = work.measure(predictions, upscaling, offset=offset, least_score=least)
        return _Asked(points_xy_P2, predictions, upscaling, work, measured)

    def _judge(self, asked: _Asked) -> tuple[Candidates[Any], Funnel]:
        """The stable candidates of a batch away from the crop's edges."""
        live = asked.measured.arrived()
        stability_N = stability_scores(live.measures.tight_N, live.measures.loose_N)
        stable_N = stability_N >= self.recipe.stability_score_thresh

        crop_4 = np.array(self.crop.box_xyxy)
        box_N4 = live.measures.box_xyxy_N4 + np.tile(crop_4[:2], 2)
        edge_N = at_crop_edge(box_N4, self.crop, image_hw=self.image_hw, tolerance=self.recipe.crop_edge_tolerance)
        self.observer.prompted(
            Prompted(
                crop=self.crop,
                encoded=self.encoded,
                segmenter=self.segmenter,
                points_xy_P2=asked.points_xy_P2,
                predictions=asked.predictions,
                upscaling=asked.upscaling,
                live=live,
                box_xyxy_N4=box_N4,
                stable_N=stable_N,
                edge_N=edge_N,
            )
        )
        chosen_K = np.flatnonzero(stable_N & ~edge_N)
        point_K, output_K = np.divmod(live.slot_N[chosen_K], self.segmenter.outputs_per_prompt)
        candidates = Candidates(
            box_xyxy_N4=box_N4[chosen_K],
            predicted_iou_N=live.predicted_iou_N[chosen_K],
            stability_N=stability_N[chosen_K],
            point_xy_N2=asked.points_xy_P2[point_K] + crop_4[:2],
            mask_index_N=output_K,
            crop_xyxy_N4=np.tile(crop_4, (len(chosen_K), 1)),
            layer_N=np.full(len(chosen_K), self.crop.layer),
            masks=asked.measured.untraced(chosen_K),
        )
        asked_for, stable = len(asked.points_xy_P2) * self.segmenter.outputs_per_prompt, int(stable_N.sum())
        funnel = Funnel(
            candidates=asked_for,
            low_predicted_iou=asked_for - len(stable_N),
            low_stability=len(stable_N) - stable,
            at_crop_edge=stable - len(chosen_K),
        )
        return candidates, funnel
