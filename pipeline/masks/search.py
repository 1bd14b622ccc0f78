"""One crop: prompt its grid of points, keep the good candidates, remove the duplicates among them.

Owns what is on the device at full size, and for how long. Masks leave here as run lengths.
Legend: P points of a batch, N predictions of a batch, M of them in one step, K kept, H W pixels of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.masks.candidates import Candidates
from pipeline.masks.crops import Crop, grid_points, points_per_side
from pipeline.masks.filters import at_crop_edge, predicted_iou_cut, stability_scores
from pipeline.masks.nms import best_first, box_nms
from pipeline.masks.pixels import mask_boxes, masks_per_step, upscale_logits
from pipeline.masks.rle import encode_mask
from pipeline.masks.segmenter import Predictions, Segmenter
from pipeline.records import Funnel
from pipeline.settings import Recipe


@dataclass(frozen=True, slots=True)
class CropSearch:
    """An encoded crop, where it lies in its image, and how to search it."""

    image_hw: tuple[int, int]
    crop: Crop
    encoded: Any
    """The segmenter's `EncodedCrop`."""
    segmenter: Segmenter
    recipe: Recipe

    def run(self) -> tuple[Candidates, Funnel]:
        """What survives inside this crop, best predicted IoU first, and what became of every candidate so far."""
        points_xy_P2 = grid_points(self.crop.hw, points_per_side(self.recipe, self.crop.layer))
        size = self.recipe.points_per_batch
        batches = [self._prompt(points_xy_P2[start : start + size]) for start in range(0, len(points_xy_P2), size)]
        found = Candidates.concatenate([candidates for candidates, _ in batches])
        order = best_first(found.predicted_iou_N)
        kept = found.take(box_nms(found.box_xyxy_N4, order, iou_thresh=self.recipe.box_nms_thresh))
        funnel = sum((funnel for _, funnel in batches), Funnel(duplicate_in_crop=len(found) - len(kept)))
        return kept, funnel

    def _prompt(self, points_xy_P2: npt.NDArray[np.float64]) -> tuple[Candidates, Funnel]:
        """One batch of points, its masks upscaled a few at a time."""
        predictions = self.segmenter.decode(self.encoded, points_xy_P2, pred_iou_thresh=predicted_iou_cut(self.recipe))
        asked = len(points_xy_P2) * self.segmenter.outputs_per_prompt
        count = len(predictions.logits_Nhw)
        funnel = Funnel(candidates=asked, low_predicted_iou=asked - count)
        parts: list[Candidates] = []
        step = masks_per_step(self.crop.hw, self.segmenter.input_side)
        for start in range(0, count, step):
            part, dropped = self._examine(predictions, points_xy_P2, torch.arange(start, min(start + step, count)))
            parts.append(part)
            funnel += dropped
        return Candidates.concatenate(parts), funnel

    def _examine(
        self, predictions: Predictions, points_xy_P2: npt.NDArray[np.float64], index_M: torch.Tensor
    ) -> tuple[Candidates, Funnel]:
        """The chosen predictions at full size: stable ones away from the crop's edges, as run lengths."""
        logits_MHW = upscale_logits(
            predictions.logits_Nhw[index_M],
            input_side=self.segmenter.input_side,
            resized_hw=self.encoded.resized_hw,
            crop_hw=self.crop.hw,
        )
        stability_M = stability_scores(logits_MHW, offset=self.recipe.stability_score_offset).cpu()
        stable = torch.nonzero(stability_M >= self.recipe.stability_score_thresh).flatten()
        masks_KHW = (logits_MHW > 0)[stable]
        del logits_MHW  # the largest thing alive

        box_4 = torch.tensor(self.crop.box_xyxy)
        boxes = mask_boxes(masks_KHW).cpu() + box_4[:2].repeat(2)
        edge = at_crop_edge(boxes, self.crop, image_hw=self.image_hw, tolerance=self.recipe.crop_edge_tolerance)
        inner = torch.nonzero(~edge).flatten()
        chosen = index_M[stable[inner]]
        candidates = Candidates(
            box_xyxy_N4=boxes[inner],
            predicted_iou_N=predictions.predicted_iou_N[chosen].cpu(),
            stability_N=stability_M[stable[inner]],
            point_xy_N2=torch.as_tensor(points_xy_P2)[predictions.point_index_N[chosen].cpu()] + box_4[:2],
            mask_index_N=predictions.mask_index_N[chosen].cpu(),
            crop_xyxy_N4=box_4.expand(len(chosen), 4),
            layer_N=torch.full((len(chosen),), self.crop.layer),
            rles=tuple(encode_mask(mask_HW) for mask_HW in masks_KHW[inner].cpu().numpy()),
        )
        return candidates, Funnel(low_stability=len(index_M) - len(stable), at_crop_edge=len(stable) - len(inner))
