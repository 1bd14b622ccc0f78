"""One image: duplicates across crops, clean-up, duplicates again, area; then the masks as records.

Owns the order of these steps and the accounting: every candidate ends in exactly one field of the funnel.
Legend: N candidates, K kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from pipeline.errors import ContractError
from pipeline.masks.candidates import Candidates
from pipeline.masks.clean import clean_mask
from pipeline.masks.filters import covers_too_much
from pipeline.masks.nms import best_first, box_nms, order_across_crops
from pipeline.masks.rle import Rle
from pipeline.records import Funnel, ImageMasks, Mask
from pipeline.settings import Recipe


def merge_crops(
    image_hw: tuple[int, int], crops: Sequence[Candidates[Rle]], funnel: Funnel, recipe: Recipe
) -> ImageMasks:
    """The image's result from what each of its crops found.

    crops   one per crop, each already free of duplicates, masks in its crop's frame
    funnel  what became of the candidates up to here
    raises  ContractError if a candidate is unaccounted for
    """
    found = Candidates.concatenate(crops)
    unique = found if len(crops) == 1 else _unique_across_crops(found, recipe)
    whole, changed_N = _clean(_paste(unique, image_hw), recipe)
    distinct = _unique_after_clean(whole, changed_N, recipe)
    masks = tuple(_records(distinct, image_hw, recipe))
    funnel += Funnel(
        duplicate_across_crops=len(found) - len(unique),
        too_small=len(unique) - len(whole),
        duplicate_after_clean=len(whole) - len(distinct),
        too_large=len(distinct) - len(masks),
        kept=len(masks),
    )
    accounted = sum(getattr(funnel, field.name) for field in fields(funnel) if field.name != "candidates")
    if accounted != funnel.candidates:
        raise ContractError(f"{funnel.candidates} candidates, {accounted} accounted for: {funnel}")
    return ImageMasks(masks, funnel)


def _unique_across_crops(found: Candidates[Rle], recipe: Recipe) -> Candidates[Rle]:
    order = order_across_crops(found, recipe.crop_rank)
    return found.take(box_nms(found.box_xyxy_N4, order, iou_thresh=recipe.crop_nms_thresh))


def _paste(candidates: Candidates[Rle], image_hw: tuple[int, int]) -> Candidates[Rle]:
    """Masks moved from their crops' frames to the image's."""
    origins = candidates.crop_xyxy_N4[:, :2].numpy().tolist()
    pasted = (
        rle.pasted(at_xy=(x, y), frame_hw=image_hw) for rle, (x, y) in zip(candidates.masks, origins, strict=True)
    )
    return candidates.with_masks(tuple(pasted))


def _clean(candidates: Candidates[Rle], recipe: Recipe) -> tuple[Candidates[Rle], torch.Tensor]:
    """Masks without small holes and islands, and which of them changed; those with only small parts are dropped.

    The box of an untouched mask stays as it was.
    """
    if not recipe.min_mask_region_area and not recipe.drop_if_largest_below:
        return candidates, torch.zeros(len(candidates), dtype=torch.bool)
    cleaned = [clean_mask(rle, below_area=recipe.min_mask_region_area) for rle in candidates.masks]
    boxes_N4 = candidates.box_xyxy_N4.clone()
    for box_4, mask in zip(boxes_N4, cleaned, strict=True):
        if mask.changed:
            box_4[:] = torch.tensor(mask.rle.box_xyxy)
    changed_N = torch.tensor([mask.changed for mask in cleaned], dtype=torch.bool)
    large_N = torch.tensor([mask.largest_area >= recipe.drop_if_largest_below for mask in cleaned], dtype=torch.bool)
    whole = replace(candidates, box_xyxy_N4=boxes_N4, masks=tuple(mask.rle for mask in cleaned))
    return whole.take(torch.nonzero(large_N).flatten()), changed_N[large_N]


def _unique_after_clean(candidates: Candidates[Rle], changed_N: torch.Tensor, recipe: Recipe) -> Candidates[Rle]:
    """Masks that the clean-up made equal: untouched ones are preferred, else the order so far decides."""
    if not recipe.min_mask_region_area:
        return candidates
    thresh = max(recipe.box_nms_thresh, recipe.crop_nms_thresh)
    order = best_first((~changed_N).float())
    return candidates.take(box_nms(candidates.box_xyxy_N4, order, iou_thresh=thresh))


def _records(candidates: Candidates[Rle], image_hw: tuple[int, int], recipe: Recipe) -> list[Mask]:
    """The candidates in SA-1B's terms, without those that cover too much of the image."""
    columns = zip(
        candidates.masks,
        _xywh(candidates.box_xyxy_N4),
        candidates.predicted_iou_N.numpy().tolist(),
        candidates.stability_N.numpy().tolist(),
        candidates.point_xy_N2.numpy().tolist(),
        _xywh(candidates.crop_xyxy_N4),
        candidates.layer_N.numpy().tolist(),
        candidates.mask_index_N.numpy().tolist(),
        strict=True,
    )
    return [
        Mask(rle.packed(), box, area, iou, stability, (x, y), crop_box, layer, mask_index)
        for rle, box, iou, stability, (x, y), crop_box, layer, mask_index in columns
        if not covers_too_much(area := rle.area, image_hw=image_hw, max_fraction=recipe.max_area_fraction)
    ]


def _xywh(box_xyxy_N4: torch.Tensor) -> list[tuple[float, float, float, float]]:
    """Width and height as differences of the corners: for inclusive boxes SA-1B's own convention, one pixel short."""
    return [(float(x0), float(y0), float(x1 - x0), float(y1 - y0)) for x0, y0, x1, y1 in box_xyxy_N4.numpy().tolist()]
