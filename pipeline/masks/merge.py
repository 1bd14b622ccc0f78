"""One image: duplicates across crops, clean-up, duplicates again, area; then the masks as records.

Owns the order of these steps, and the check that every candidate of the image ends in exactly one field of the funnel.
Legend: N candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from pipeline.errors import ContractError
from pipeline.masks.arrays import Flags, Integers
from pipeline.masks.candidates import Candidates
from pipeline.masks.clean import clean_mask
from pipeline.masks.filters import covers_too_much
from pipeline.masks.nms import box_nms, order_across_crops, untouched_first
from pipeline.masks.observer import UNOBSERVED, Among, Observer
from pipeline.masks.rle import Rle
from pipeline.records import Funnel, ImageMasks, Mask
from pipeline.settings import Recipe


def merge_crops(
    image_hw: tuple[int, int],
    crops: Sequence[Candidates[Rle]],
    funnel: Funnel,
    recipe: Recipe,
    observer: Observer = UNOBSERVED,
) -> ImageMasks:
    """The image's result from what each of its crops found.

    crops   one per crop, each already free of duplicates, masks in its crop's frame
    funnel  what became of the candidates up to here
    observer  told of each step, of which it changes nothing
    raises  ContractError if a candidate is unaccounted for
    """
    found = Candidates.concatenate(crops)
    unique = found if len(crops) == 1 else _unique_across_crops(found, recipe, observer)
    whole, changed_N = _clean(_paste(unique, image_hw), recipe, observer)
    distinct = _unique_after_clean(whole, changed_N, recipe, observer)
    area_N = np.array([rle.area for rle in distinct.masks], np.int64)
    large_N = covers_too_much(area_N, image_hw=image_hw, max_fraction=recipe.max_area_fraction)
    observer.sized(distinct, large_N)
    kept = distinct.take(np.flatnonzero(~large_N))
    funnel += Funnel(
        duplicate_across_crops=len(found) - len(unique),
        too_small=len(unique) - len(whole),
        duplicate_after_clean=len(whole) - len(distinct),
        too_large=len(distinct) - len(kept),
        kept=len(kept),
    )
    accounted = sum(getattr(funnel, field.name) for field in fields(funnel) if field.name != "candidates")
    if accounted != funnel.candidates:
        raise ContractError(f"{funnel.candidates} candidates, {accounted} accounted for: {funnel}")
    return ImageMasks(tuple(_records(kept)), funnel)


def _unique_across_crops(found: Candidates[Rle], recipe: Recipe, observer: Observer) -> Candidates[Rle]:
    order = order_across_crops(found, recipe.crop_rank)
    kept_K = box_nms(found.box_xyxy_N4, order, iou_thresh=recipe.crop_nms_thresh)
    observer.deduplicated(Among.ACROSS_CROPS, found, order, kept_K, recipe.crop_nms_thresh)
    return found.take(kept_K)


def _paste(candidates: Candidates[Rle], image_hw: tuple[int, int]) -> Candidates[Rle]:
    """Masks moved from their crops' frames to the image's."""
    origins = candidates.crop_xyxy_N4[:, :2].tolist()
    pasted = (
        rle.pasted(at_xy=(x, y), frame_hw=image_hw) for rle, (x, y) in zip(candidates.masks, origins, strict=True)
    )
    return candidates.with_masks(tuple(pasted))


def _clean(candidates: Candidates[Rle], recipe: Recipe, observer: Observer) -> tuple[Candidates[Rle], Flags]:
    """Masks without small holes and islands, and which of them changed; those with only small parts are dropped.

    The box of an untouched mask stays as it was.
    """
    if not recipe.min_mask_region_area and not recipe.drop_if_largest_below:
        return candidates, np.zeros(len(candidates), np.bool_)
    cleaned = [clean_mask(rle, below_area=recipe.min_mask_region_area) for rle in candidates.masks]
    boxes_N4 = candidates.box_xyxy_N4.copy()
    for box_4, mask in zip(boxes_N4, cleaned, strict=True):
        if mask.changed:
            box_4[:] = mask.rle.box_xyxy
    changed_N = np.array([mask.changed for mask in cleaned], np.bool_)
    large_N = np.array([mask.largest_area >= recipe.drop_if_largest_below for mask in cleaned], np.bool_)
    observer.cleaned(candidates, tuple(mask.rle for mask in cleaned), large_N)
    whole = replace(candidates, box_xyxy_N4=boxes_N4, masks=tuple(mask.rle for mask in cleaned))
    return whole.take(np.flatnonzero(large_N)), changed_N[large_N]


def _unique_after_clean(
    candidates: Candidates[Rle], changed_N: Flags, recipe: Recipe, observer: Observer
) -> Candidates[Rle]:
    """Masks that the clean-up made equal: untouched ones are preferred, else the order so far decides."""
    if not recipe.min_mask_region_area:
        return candidates
    thresh = max(recipe.box_nms_thresh, recipe.crop_nms_thresh)
    order = untouched_first(changed_N)
    kept_K = box_nms(candidates.box_xyxy_N4, order, iou_thresh=thresh)
    observer.deduplicated(Among.AFTER_CLEAN, candidates, order, kept_K, thresh)
    return candidates.take(kept_K)


def _records(candidates: Candidates[Rle]) -> list[Mask]:
    """The candidates in SA-1B's terms."""
    columns = zip(
        candidates.masks,
        _xywh(candidates.box_xyxy_N4),
        candidates.predicted_iou_N.tolist(),
        candidates.stability_N.tolist(),
        candidates.point_xy_N2.tolist(),
        _xywh(candidates.crop_xyxy_N4),
        candidates.layer_N.tolist(),
        candidates.mask_index_N.tolist(),
        strict=True,
    )
    return [
        Mask(rle.packed(), box, rle.area, iou, stability, (x, y), crop_box, layer, mask_index)
        for rle, box, iou, stability, (x, y), crop_box, layer, mask_index in columns
    ]


def _xywh(box_xyxy_N4: Integers) -> list[tuple[float, float, float, float]]:
    """Width and height as differences of the corners: for inclusive boxes SA-1B's own convention, one pixel short."""
    return [(float(x0), float(y0), float(x1 - x0), float(y1 - y0)) for x0, y0, x1, y1 in box_xyxy_N4.tolist()]
