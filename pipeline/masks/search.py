"""One crop: prompt its grid of points, keep the good candidates, remove the duplicates among them.

Owns the order of these steps, the batches of points, and how long logits are held. Masks leave here as run lengths.
Legend: P points of a batch, N predictions of a batch, w h low-resolution cells (transposed).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from pipeline.masks.arrays import Points
from pipeline.masks.candidates import Candidates
from pipeline.masks.crops import Crop, grid_points, points_per_side
from pipeline.masks.filters import at_crop_edge, predicted_iou_cut, stability_scores
from pipeline.masks.measure import measure_masks
from pipeline.masks.nms import best_first, box_nms
from pipeline.masks.observer import UNOBSERVED, Among, Observer, Prompted
from pipeline.masks.rle import Rle
from pipeline.masks.segmenter import Encoded, Segmenter, cells_on_host
from pipeline.masks.trace import UntracedMask
from pipeline.records import Funnel
from pipeline.settings import Recipe


@dataclass(frozen=True, slots=True)
class CropSearch(Generic[Encoded]):
    """An encoded crop, where it lies in its image, and how to search it."""

    image_hw: tuple[int, int]
    crop: Crop
    encoded: Encoded
    segmenter: Segmenter[Encoded]
    recipe: Recipe
    observer: Observer = UNOBSERVED

    def run(self) -> tuple[Candidates[Rle], Funnel]:
        """What survives inside this crop, best predicted IoU first, and what became of every candidate so far.

        Of every stable candidate the logits of the cells that matter are held until duplicates are known, 4 bytes a
        cell: at most 200 KiB of a 3:2 image in Segment Anything. Only survivors are made into masks.
        """
        points_xy_P2 = grid_points(self.crop.hw, points_per_side(self.recipe, self.crop.layer))
        size = self.recipe.points_per_batch
        batches = [self._prompt(points_xy_P2[start : start + size]) for start in range(0, len(points_xy_P2), size)]
        found = Candidates.concatenate([candidates for candidates, _ in batches])
        order, thresh = best_first(found.predicted_iou_N), self.recipe.box_nms_thresh
        kept_K = box_nms(found.box_xyxy_N4, order, iou_thresh=thresh)
        self.observer.deduplicated(Among.IN_CROP, found, order, kept_K, thresh)
        kept = found.take(kept_K)
        funnel = sum((funnel for _, funnel in batches), Funnel(duplicate_in_crop=len(found) - len(kept)))
        return kept.with_masks(tuple(mask.traced() for mask in kept.masks)), funnel

    def _prompt(self, points_xy_P2: Points) -> tuple[Candidates[UntracedMask], Funnel]:
        """One batch of points: the stable candidates away from the crop's edges."""
        predictions = self.segmenter.decode(self.encoded, points_xy_P2, pred_iou_thresh=predicted_iou_cut(self.recipe))
        asked = len(points_xy_P2) * self.segmenter.outputs_per_prompt
        logits_Nwh, upscaling = cells_on_host(predictions.logits_Nhw, self.segmenter, self.encoded)

        threshold = self.recipe.stability_score_thresh
        offset = self.recipe.stability_score_offset
        # A score that is lower by more than float32 can blur needs no exact value.
        measures = measure_masks(logits_Nwh, upscaling, offset=offset, least_score=threshold - 1e-4)
        stability_N = stability_scores(measures.tight_N, measures.loose_N)
        stable_N = stability_N >= threshold

        crop_4 = np.array(self.crop.box_xyxy)
        box_N4 = measures.box_xyxy_N4 + np.tile(crop_4[:2], 2)
        edge_N = at_crop_edge(box_N4, self.crop, image_hw=self.image_hw, tolerance=self.recipe.crop_edge_tolerance)
        self.observer.prompted(
            Prompted(
                crop=self.crop,
                encoded=self.encoded,
                segmenter=self.segmenter,
                points_xy_P2=points_xy_P2,
                predictions=predictions,
                logits_Nwh=logits_Nwh,
                upscaling=upscaling,
                box_xyxy_N4=box_N4,
                stable_N=stable_N,
                edge_N=edge_N,
            )
        )
        chosen = np.flatnonzero(stable_N & ~edge_N)
        candidates = Candidates(
            box_xyxy_N4=box_N4[chosen],
            predicted_iou_N=predictions.predicted_iou_N.cpu().numpy()[chosen],
            stability_N=stability_N[chosen],
            point_xy_N2=points_xy_P2[predictions.point_index_N.cpu().numpy()[chosen]] + crop_4[:2],
            mask_index_N=predictions.mask_index_N.cpu().numpy()[chosen],
            crop_xyxy_N4=np.tile(crop_4, (len(chosen), 1)),
            layer_N=np.full(len(chosen), self.crop.layer),
            masks=tuple(UntracedMask(logits_wh, upscaling) for logits_wh in logits_Nwh[chosen]),
        )
        stable = int(stable_N.sum())
        funnel = Funnel(
            candidates=asked,
            low_predicted_iou=asked - len(logits_Nwh),
            low_stability=len(logits_Nwh) - stable,
            at_crop_edge=stable - len(chosen),
        )
        return candidates, funnel
