"""Own grids and regions of interest: which points are prompted, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import ConfigError, ContractError
from pipeline.masks.crops import Crop, image_crops, points_per_side, unit_grid
from pipeline.masks.generator import generate_masks
from pipeline.masks.points import Prompts, checked_grid, crop_points
from pipeline.settings import Recipe
from tests.fake_segmenter import FakeCrop, FakeSegmenter
from tests.masks.conftest import scene

RECIPE = Recipe(points_per_side=6, crop_n_layers=1, stability_score_thresh=0.0)
IMAGE_HW3 = scene(90, 120, seed=3)
WHOLE = Crop((0, 0, 120, 90), 0)


class Watched(FakeSegmenter):
    """Notes which crops were encoded, by their size, and where points were asked for."""

    def __init__(self) -> None:
        self.encoded: list[tuple[int, int]] = []
        self.asked: list[list[float]] = []

    def encode(self, crops_HW3: Sequence[npt.NDArray[np.uint8]]) -> list[FakeCrop]:
        self.encoded += [(crop_HW3.shape[0], crop_HW3.shape[1]) for crop_HW3 in crops_HW3]
        return super().encode(crops_HW3)

    def decode(self, crop: FakeCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float) -> Any:
        self.asked += points_xy_P2.tolist()
        return super().decode(crop, points_xy_P2, pred_iou_thresh=pred_iou_thresh)


def test_a_point_is_on_the_pixel_that_it_falls_into() -> None:
    """The pixel of (x, y) is (floor x, floor y) at full resolution; the right and lower edges are on the last one."""
    grid_P2 = np.array([[0.0, 0.0], [0.5, 0.5], [0.9999, 0.9999], [1.0, 1.0]])
    pixels = [(0, 0), (45, 60), (89, 119), (89, 119)]
    for row, column in pixels:
        region_HW = np.zeros((90, 120), np.bool_)
        region_HW[row, column] = True
        points_xy_P2 = crop_points(WHOLE, [grid_P2], IMAGE_HW3, RECIPE, region_HW)
        expected = [grid_P2[n] * [120, 90] for n in range(4) if pixels[n] == (row, column)]
        assert np.array_equal(points_xy_P2, expected)


def test_pixels_are_the_images_in_every_crop() -> None:
    """A window asks for its own corner of the region, not for the region's corner."""
    region_HW = np.zeros((90, 120), np.bool_)
    region_HW[50:, 70:] = True
    for crop in image_crops((90, 120), RECIPE):
        grids = [unit_grid(points_per_side(RECIPE, layer)) for layer in range(2)]
        inside = {tuple(point) for point in crop_points(crop, grids, IMAGE_HW3, RECIPE, region_HW).tolist()}
        x0, y0 = crop.box_xyxy[:2]
        for x, y in crop_points(crop, grids, IMAGE_HW3, RECIPE, None).tolist():
            assert ((x, y) in inside) == (x + x0 >= 70 and y + y0 >= 50)


def test_nodata_is_one_colour_exactly() -> None:
    """Black borders of a mosaic go, and a nearly black pixel is a picture."""
    image_HW3 = np.zeros((10, 10, 3), np.uint8)
    image_HW3[:, 5:] = (0, 0, 1)
    points_xy_P2 = crop_points(Crop((0, 0, 10, 10), 0), [unit_grid(10)], image_HW3, Recipe(nodata=(0, 0, 0)), None)
    assert (len(points_xy_P2), int(points_xy_P2[:, 0].min())) == (50, 5)


def test_a_region_takes_away_points_and_changes_no_other_mask() -> None:
    """What the remaining points give is what they give without a region; duplicates aside, of which there are none."""
    recipe = replace(RECIPE, box_nms_thresh=1.0, crop_nms_thresh=1.0)
    region_HW = np.zeros((90, 120), np.bool_)
    region_HW[:, 40:] = True
    [every] = generate_masks([IMAGE_HW3], FakeSegmenter(), recipe)
    [some] = generate_masks([IMAGE_HW3], FakeSegmenter(), recipe, prompts=[Prompts(region_HW=region_HW)])
    assert 0 < len(some.masks) < len(every.masks)
    assert some.masks == tuple(mask for mask in every.masks if mask.point_xy[0] >= 40)
    assert some.funnel.candidates < every.funnel.candidates


def test_a_crop_without_points_is_not_encoded_and_others_keep_their_masks() -> None:
    """The encoder is most of the cost of a crop."""
    region_HW = np.zeros((90, 120), np.bool_)
    region_HW[:30, :30] = True
    watched = Watched()
    [result] = generate_masks([IMAGE_HW3], watched, RECIPE, prompts=[Prompts(region_HW=region_HW)])
    assert len(watched.encoded) == 2
    assert {mask.crop_layer for mask in result.masks} <= {0, 1}
    assert result.masks


@pytest.mark.parametrize("layers", [0, 1])
def test_an_image_without_points_is_a_result_without_masks_and_costs_nothing(layers: int) -> None:
    """Not a failure: nothing was asked."""
    watched = Watched()
    recipe = replace(RECIPE, crop_n_layers=layers, min_mask_region_area=10)
    off = Prompts(region_HW=np.zeros((90, 120), np.bool_))
    results = generate_masks([IMAGE_HW3, IMAGE_HW3], watched, recipe, prompts=[off, Prompts()])
    assert (results[0].masks, results[0].funnel.candidates) == ((), 0)
    assert results[1] == generate_masks([IMAGE_HW3], FakeSegmenter(), recipe)[0]
    assert len(watched.encoded) == 1 + 4 * layers


def test_own_grids_are_asked_in_their_order_one_a_layer() -> None:
    """Equal scores keep the order of the grid."""
    grids = (np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0.5, 0.5]]))
    watched = Watched()
    generate_masks([IMAGE_HW3], watched, RECIPE, prompts=[Prompts(grids)])
    assert watched.asked[:2] == [[0.9 * 120, 0.1 * 90], [0.1 * 120, 0.9 * 90]]
    assert len(watched.asked) == 2 + 4
    with pytest.raises(ConfigError, match="grids for 2 crop layers, and crop_n_layers=2 needs 3"):
        generate_masks([IMAGE_HW3], watched, replace(RECIPE, crop_n_layers=2), prompts=[Prompts(grids)])


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([[0.5, 0.5, 0.5]], r"must have the shape \(points, 2\).*\(1, 3\)"),
        ([0.5, 0.5], r"must have the shape \(points, 2\).*it has \(2\)"),
        (np.zeros((0, 2)), r"must have the shape \(points, 2\).*\(0, 2\)"),
        ([[0.5, 0.5], [0.2, 1.01]], r"in \[0, 1\].*point 1 is \(0\.2, 1\.01\)"),
        ([[np.nan, 0.5]], r"point 0 is \(nan, 0\.5\)"),
        ([["a", "b"]], "must be numbers, two a point"),
        ([[0.5, 0.5], [0.5]], "must be numbers, two a point"),
    ],
)
def test_what_is_no_grid_is_refused_with_what_it_is(points: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match="the grid .*" + reason):
        checked_grid(points, "the grid")


def test_a_recipe_whose_files_nobody_read_is_refused() -> None:
    """A region that is silently left out would be an image segmented whole."""
    for recipe in (Recipe(point_grid="a.npy"), Recipe(roi="masks")):
        with pytest.raises(ConfigError, match="leave it out here"):
            generate_masks([IMAGE_HW3], FakeSegmenter(), recipe)
    with pytest.raises(ContractError, match="for an image of"):
        generate_masks([IMAGE_HW3], FakeSegmenter(), RECIPE, prompts=[Prompts(region_HW=np.ones((9, 9), np.bool_))])
