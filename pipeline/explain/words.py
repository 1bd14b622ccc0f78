"""What each step of the generator does, in words, and which settings decide it. By the names of the funnel's fields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    title: str
    what: str
    settings: tuple[str, ...]


POINTS = (
    "points_per_side",
    "crop_n_layers",
    "crop_n_points_downscale_factor",
    "crop_overlap_ratio",
    "point_grid",
    "roi",
    "nodata",
    "use_m2m",
)
"""Settings of what comes before the first step that removes anything."""

WORDS = {
    "low_predicted_iou": Words(
        "Predicted IoU",
        "For each mask the model predicts how well it fits, as an IoU. A candidate stays if that is above the "
        "threshold. This is the model's own estimate; a mask may be better or worse than it says.",
        ("pred_iou_thresh",),
    ),
    "low_stability": Words(
        "Stability",
        "A mask is where the model's logits are above 0. Its stability is the IoU of the mask cut at +offset and at "
        "-offset; yellow is what lies between these cuts. A candidate stays if it reaches the threshold.",
        ("stability_score_thresh", "stability_score_offset"),
    ),
    "at_crop_edge": Words(
        "Edge of the crop",
        "A box that comes this near to the edge of its crop (the dashed line), and not to the image's own, is cut off: "
        "another crop shows the thing whole. The full image has no such edge.",
        ("crop_edge_tolerance",),
    ),
    "duplicate_in_crop": Words(
        "Duplicates inside a crop",
        "Of two masks of one crop whose boxes overlap more than the threshold, the one with the higher predicted IoU "
        "stays. Boxes decide, not the masks in them.",
        ("box_nms_thresh",),
    ),
    "duplicate_across_crops": Words(
        "Duplicates across crops",
        "Of two masks of different crops whose boxes overlap more than the threshold, the one that crop_rank prefers "
        "stays. With one crop there are none.",
        ("crop_nms_thresh", "crop_rank"),
    ),
    "too_small": Words(
        "Clean-up",
        "Holes smaller than min_mask_region_area are filled (yellow), then such islands are removed (red). "
        "A mask whose largest part is smaller than drop_if_largest_below is dropped. 0 switches either off.",
        ("min_mask_region_area", "drop_if_largest_below"),
    ),
    "duplicate_after_clean": Words(
        "Duplicates after the clean-up",
        "The clean-up can make two masks alike. The larger of the two thresholds applies, and masks that it left "
        "unchanged are preferred.",
        ("box_nms_thresh", "crop_nms_thresh"),
    ),
    "too_large": Words(
        "Area",
        "A mask that covers this share of the image or more is dropped; null drops none.",
        ("max_area_fraction",),
    ),
}
"""In the order of the steps."""
