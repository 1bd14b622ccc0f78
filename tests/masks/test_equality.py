"""Our generator against `SamAutomaticMaskGenerator` of segment_anything 1.0, on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask

from benchmarks.reference.official import OfficialSegmenter, build_official, segment_anything
from model.config import CONFIGS
from model.load import BUNDLED, load_sam
from model.sam import Sam
from model.segmenter import TorchSegmenter
from model.training.scenes import HELD_OUT_FROM, draw_scene
from pipeline.masks.generator import generate_masks
from pipeline.records import ImageMasks, Mask
from pipeline.settings import Recipe
from tests.masks.conftest import MINI, scene
from tests.masks.remembering import asked_once

Options = dict[str, Any]

OPTIONS: list[tuple[tuple[int, int], Options]] = [
    ((120, 160), {"points_per_side": 9}),
    ((120, 160), {"points_per_side": 8, "points_per_batch": 7, "pred_iou_thresh": 0.8}),
    ((134, 90), {"points_per_side": 8, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.9}),
    ((120, 160), {"points_per_side": 6, "pred_iou_thresh": 0.95, "stability_score_thresh": 0.0}),
    ((120, 160), {"points_per_side": 7, "stability_score_offset": 3.0, "stability_score_thresh": 0.8}),
    ((120, 160), {"points_per_side": 7, "box_nms_thresh": 0.95}),
    ((120, 173), {"points_per_side": 10, "box_nms_thresh": 0.95, "min_mask_region_area": 2}),
    ((120, 160), {"points_per_side": 6, "crop_n_layers": 1}),
    ((121, 163), {"points_per_side": 6, "crop_n_layers": 1, "crop_nms_thresh": 0.9, "box_nms_thresh": 0.8}),
    ((136, 175), {"points_per_side": 8, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2}),
    ((136, 175), {"points_per_side": 4, "crop_n_layers": 1, "crop_overlap_ratio": 0.1, "points_per_batch": 1000}),
    (
        (203, 271),
        {
            "points_per_side": 8,
            "crop_n_layers": 2,
            "crop_n_points_downscale_factor": 2,
            "min_mask_region_area": 40,
            "box_nms_thresh": 0.95,
            "crop_nms_thresh": 0.8,
        },
    ),
    ((31, 977), {"points_per_side": 8}),
    ((977, 31), {"points_per_side": 5, "crop_n_layers": 1, "min_mask_region_area": 30}),
    ((31, 777), {"points_per_side": 3, "crop_n_layers": 2, "stability_score_thresh": 0.8}),
    ((1, 1), {"points_per_side": 3, "min_mask_region_area": 5}),
    ((2, 3), {"points_per_side": 3, "stability_score_thresh": 0.0}),
    ((420, 384), {"points_per_side": 7, "min_mask_region_area": 100, "pred_iou_thresh": 0.85}),
]


def official_masks(sam: Any, image_HW3: npt.NDArray[np.uint8], options: Options) -> list[Options]:
    return segment_anything.SamAutomaticMaskGenerator(sam, output_mode="coco_rle", **options).generate(image_HW3)


def assert_equal(
    masks: tuple[Mask, ...], official: list[Options], hw: tuple[int, int], *, different_share: float = 0.01
) -> None:
    """Same masks in the same order; one in a hundred may differ by a pixel in ten thousand (none did of SAM 1)."""
    assert len(masks) == len(official)
    different = 0
    for ours, theirs in zip(masks, official, strict=True):
        assert ours.predicted_iou == pytest.approx(theirs["predicted_iou"], abs=1e-4)
        # The score is a ratio of pixel counts, and a pixel on a cut falls to either side when sums round otherwise.
        two_pixels = 2 / max(1, ours.area)
        assert ours.stability_score == pytest.approx(released_stability(theirs), abs=max(1e-4, two_pixels))
        assert [list(ours.point_xy)] == theirs["point_coords"]
        assert list(ours.crop_box_xywh) == theirs["crop_box"]
        if ours.counts == theirs["segmentation"]["counts"]:
            assert list(ours.bbox_xywh) == theirs["bbox"]
            assert ours.area == theirs["area"]
        else:
            different += 1
            rle: Any = {"size": list(hw), "counts": ours.counts}
            iou: Any = coco_mask.iou([rle], [theirs["segmentation"]], [False])
            assert iou[0, 0] >= 0.9999
    assert different <= len(masks) * different_share


def released_stability(theirs: Options) -> float:
    """0/0 pixels: the released score is NaN (and passes only where the threshold is switched off), ours 0."""
    return float(np.nan_to_num(theirs["stability_score"]))


def columns_of_ours(masks: tuple[Mask, ...]) -> list[tuple[Any, ...]]:
    return [
        (
            m.counts,
            m.area,
            list(m.bbox_xywh),
            m.predicted_iou,
            m.stability_score,
            [list(m.point_xy)],
            list(m.crop_box_xywh),
        )
        for m in masks
    ]


def columns_of_theirs(official: list[Options]) -> list[tuple[Any, ...]]:
    names = ("point_coords", "crop_box")
    return [
        (
            *(each["segmentation"]["counts"], each["area"], each["bbox"], each["predicted_iou"]),
            *(released_stability(each), *(each[name] for name in names)),
        )
        for each in official
    ]


@dataclass(frozen=True)
class Pair:
    """Both generators on one image, with the released network."""

    ours: ImageMasks
    official: list[Options]


TRAINED = (0, 1, 2, 3, 6, 8, 12, 13, 15, 16, 17)
"""Numbers of the option sets that the weights of `tiny` go through: ordinary, long, tiny and large images, every
threshold that the network is told, points in batches, one layer of crops."""
WILD = (2, 4, 5, 6, 7, 8, 9, 10, 11, 14, 17)
"""Those that calibrated random weights go through, of which an answer costs a tenth: all that is the generator's."""


def wild_image(number: int) -> npt.NDArray[np.uint8]:
    return scene(*OPTIONS[number][0], seed=4)


@pytest.fixture(scope="module")
def wild(mini_sam: Any) -> dict[int, Pair]:
    """By the number of the option set."""
    pairs: dict[int, Pair] = {}
    for number in WILD:
        image_HW3, (_, options) = wild_image(number), OPTIONS[number]
        with asked_once(mini_sam):
            [ours] = generate_masks([image_HW3], OfficialSegmenter(mini_sam), Recipe(**options))
            pairs[number] = Pair(ours, official_masks(mini_sam, image_HW3, options))
    return pairs


@pytest.mark.parametrize("number", WILD)
def test_wild_masks_go_through_the_official_options_alike(wild: dict[int, Pair], number: int) -> None:
    """Calibrated random weights make masks that trained ones do not: scattered, cut off, full of holes.

    To the bit, for both generators have the released network's own logits.
    """
    assert columns_of_ours(wild[number].ours.masks) == columns_of_theirs(wild[number].official)


def test_every_option_set_is_compared() -> None:
    """The two tuples are written by hand."""
    assert {*TRAINED, *WILD} == {*range(len(OPTIONS))}


def test_the_comparison_above_has_something_to_compare(wild: dict[int, Pair]) -> None:
    """Two empty lists are equal too: every official step must have had work in two of those options."""
    total = wild[6].ours.funnel + wild[11].ours.funnel
    assert total.kept >= 30
    assert total.low_predicted_iou > 100
    assert total.low_stability > 50
    assert total.at_crop_edge > 50
    assert total.duplicate_in_crop > 100
    assert total.duplicate_across_crops > 5
    assert total.duplicate_after_clean > 0


@pytest.mark.parametrize("number", [6, 11])
def test_our_network_and_generator_together_give_the_released_masks(
    mini_sam: Any, wild: dict[int, Pair], number: int
) -> None:
    """The two halves are each compared with the released code; the user runs them together."""
    sam = Sam(MINI)
    sam.load_state_dict(mini_sam.state_dict())
    segmenter, recipe = TorchSegmenter(sam, weights_sha256=""), Recipe(**OPTIONS[number][1])
    [result] = generate_masks([wild_image(number)], segmenter, recipe)
    assert len(result.masks) > 10
    assert_equal(result.masks, wild[number].official, OPTIONS[number][0])


@pytest.fixture(scope="module")
def trained() -> tuple[TorchSegmenter, Any]:
    """The weights of `tiny` twice: in our network, and in the released one through the released layout."""
    sam = load_sam(BUNDLED["tiny"].read_bytes(), expected=CONFIGS["tiny"])
    official = build_official(CONFIGS["tiny"])
    official.load_state_dict(sam.state_dict())
    return TorchSegmenter(sam, weights_sha256=""), official


@pytest.fixture(scope="module")
def bundled(trained: tuple[TorchSegmenter, Any]) -> Callable[[int], tuple[npt.NDArray[np.uint8], Options, ImageMasks]]:
    """Number of an option set -> image, options and what our network and our generator make of it, made once.

    Where an option set does not speak of them, thresholds are lower than the defaults, so that more is compared.
    """

    @cache
    def made(number: int) -> tuple[npt.NDArray[np.uint8], Options, ImageMasks]:
        hw, options = OPTIONS[number]
        options = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.6, **options}
        image_HW3 = draw_scene(0, HELD_OUT_FROM + 77, size_hw=hw).rgb_HW3
        [masks] = generate_masks([image_HW3], trained[0], Recipe(**options))
        return image_HW3, options, masks

    return made


@pytest.mark.parametrize("number", TRAINED)
def test_the_bundled_model_gives_the_released_generators_masks(
    trained: tuple[TorchSegmenter, Any], bundled: Callable[[int], Any], number: int
) -> None:
    """The promise of `recipe=sam`: someone who knows the released generator gets what they know.

    On the released network's own logits every bit is equal; with our network, whose sums round otherwise, nearly so.
    """
    (image_HW3, options, together), (_, official) = bundled(number), trained
    with asked_once(official):
        expected = official_masks(official, image_HW3, options)
        [alone] = generate_masks([image_HW3], OfficialSegmenter(official), Recipe(**options))
    assert columns_of_ours(alone.masks) == columns_of_theirs(expected)
    assert_equal(together.masks, expected, OPTIONS[number][0])


def test_the_bundled_model_has_masks_to_compare(bundled: Callable[[int], Any]) -> None:
    """Empty lists would be equal too."""
    _, _, result = bundled(8)
    assert len(result.masks) >= 5
    assert result.funnel.duplicate_in_crop > 50


def test_where_no_mask_survives_any_crop_the_result_is_empty_and_the_released_code_fails(mini_sam: Any) -> None:
    """segment-anything#614: an image without masks is a result, not an error."""
    image_HW3 = scene(120, 160, seed=2)
    options: Options = {"points_per_side": 4, "crop_n_layers": 1, "pred_iou_thresh": 100.0}
    with pytest.raises(IndexError):
        official_masks(mini_sam, image_HW3, options)
    [result] = generate_masks([image_HW3], OfficialSegmenter(mini_sam), Recipe(**options))
    assert result.masks == ()
    assert result.funnel.candidates == result.funnel.low_predicted_iou == 5 * 16 * 3
