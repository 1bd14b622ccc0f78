"""Where the generator looks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference.official import segment_anything
from pipeline.errors import ConfigError
from pipeline.masks.crops import Crop, grid_points, image_crops, points_per_side
from pipeline.settings import Recipe

amg = segment_anything.utils.amg
sides = st.integers(1, 5000)
layers = st.integers(0, 3)
overlaps = st.sampled_from([512 / 1500, 0.0, 0.1, 0.5, 0.9])


@settings(deadline=None)
@given(sides, sides, layers, overlaps)
def test_windows_are_the_released_ones_without_those_that_hold_no_pixel(
    height: int, width: int, n_layers: int, overlap: float
) -> None:
    """crop_box is part of the output, and SA-1B's own files have exactly these."""
    boxes, layer_of = amg.generate_crop_boxes((height, width), n_layers, overlap)
    released = [
        Crop((x0, y0, x1, y1), layer)
        for (x0, y0, x1, y1), layer in zip(boxes, layer_of, strict=True)
        if x0 < x1 and y0 < y1
    ]
    assert image_crops((height, width), Recipe(crop_n_layers=n_layers, crop_overlap_ratio=overlap)) == released


@settings(deadline=None)
@given(sides, sides, layers, overlaps)
def test_the_windows_of_every_layer_cover_the_image(height: int, width: int, n_layers: int, overlap: float) -> None:
    """A pixel outside all windows of a layer would never be looked at closely."""
    crops = image_crops((height, width), Recipe(crop_n_layers=n_layers, crop_overlap_ratio=overlap))
    for layer in range(n_layers + 1):
        boxes = [crop.box_xyxy for crop in crops if crop.layer == layer]
        for low, high, length in [(0, 2, width), (1, 3, height)]:
            reached = 0
            for start, stop in sorted({(box[low], box[high]) for box in boxes}):
                assert start <= reached
                reached = stop
            assert reached == length


@settings(deadline=None)
@given(sides, sides, st.integers(1, 40), layers)
def test_every_point_lies_inside_its_crop_and_every_crop_inside_the_image(
    height: int, width: int, per_side: int, n_layers: int
) -> None:
    """Wrappers of Segment Anything have prompted crops with points of another frame (transformers#35530)."""
    for crop in image_crops((height, width), Recipe(crop_n_layers=n_layers)):
        x0, y0, x1, y1 = crop.box_xyxy
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        points_xy_P2 = grid_points(crop.hw, per_side)
        assert points_xy_P2.shape == (per_side**2, 2)
        assert (points_xy_P2 > 0).all()
        assert (points_xy_P2 < [x1 - x0, y1 - y0]).all()


@pytest.mark.parametrize(("per_side", "factor"), [(32, 1), (32, 2), (10, 3), (9, 2)])
def test_grids_are_the_released_ones_to_the_last_bit(per_side: int, factor: int) -> None:
    """A point that differs in its last bit may give another mask."""
    recipe = Recipe(points_per_side=per_side, crop_n_points_downscale_factor=factor)
    released = amg.build_all_layer_point_grids(per_side, 2, factor)
    for layer, unit_P2 in enumerate(released):
        for height, width in [(31, 977), (1500, 2250), (1, 1)]:
            ours = grid_points((height, width), points_per_side(recipe, layer))
            assert np.array_equal(ours, unit_P2 * np.array([[width, height]]))


def test_a_layer_without_points_is_a_wrong_setting() -> None:
    """The released code divides by zero here; the user should read which numbers do not go together."""
    recipe = Recipe(points_per_side=3, crop_n_layers=2, crop_n_points_downscale_factor=2)
    assert points_per_side(recipe, 1) == 1
    with pytest.raises(ConfigError, match="crop layer 2 would have no points"):
        points_per_side(recipe, 2)
