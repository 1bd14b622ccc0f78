"""Images of more than 2^31 pixels: positions, runs, areas and boxes beyond what 32 bits hold.

No such image is made. Its pixels are one pixel that numpy repeats, and the masks are planted as low-resolution logits
of the form a(x) + b(y). Interpolation keeps that form, and all its weights are exact in binary here, so that the runs
of each mask follow from two lines of numbers.
Legend: W columns, Y rows, M runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pycocotools import mask as coco

from model.point_decoder import Predictions
from pipeline.masks.generator import generate_masks
from pipeline.masks.rle import unpacked
from pipeline.records import Mask
from pipeline.settings import Recipe

HW = 40_960, 65_536
PIXELS = HW[0] * HW[1]
SIDE, SQUARE = 64, 1024
CELL = HW[1] // SIDE
MIDDLE = 2**31 // HW[0] // CELL
"""The column of cells in which position 2^31 lies."""
IN, OUT = 8.0, -24.0
SPLIT = 2.0**-13
"""Added to all logits: no pixel is so near to 0 that rounding could decide."""

Line = npt.NDArray[np.float64]
repeated: Any = np.broadcast_to
IMAGE_HW3: npt.NDArray[np.uint8] = repeated(np.uint8(7), (*HW, 3))


def band(first: int, stop: int) -> Line:
    """A line of cells, inside from `first` to `stop`."""
    cells = np.arange(SIDE)
    return np.where((cells >= first) & (cells < stop), IN, OUT)


@dataclass(frozen=True)
class Shape:
    a: Line
    b: Line

    def logits_hw(self) -> torch.Tensor:
        return torch.from_numpy((self.b[:, None] + self.a[None, :] + SPLIT).astype(np.float32))

    def runs(self, hw: tuple[int, int]) -> npt.NDArray[np.int64]:
        """In a frame of this size, by its lines alone: each column has at most one stretch of mask."""
        height, width = hw
        a_W, b_Y = (stretched(line, length, max(hw)) for line, length in ((self.a, width), (self.b, height)))
        rising_Y = np.maximum.accumulate(b_Y)
        falling_Y = np.maximum.accumulate(b_Y[::-1])
        first_W = np.searchsorted(rising_Y, -a_W - SPLIT, side="right")
        stop_W = height - np.searchsorted(falling_Y, -a_W - SPLIT, side="right")
        some = first_W < stop_W
        start = np.arange(width) * height
        edges = np.stack([(start + first_W)[some], (start + stop_W)[some]], axis=1)
        joined = np.flatnonzero(edges[1:, 0] == edges[:-1, 1])  # full columns are one run
        flat = np.delete(edges.ravel(), [*(2 * joined + 1), *(2 * joined + 2)])
        rest = [height * width] if flat[-1] < height * width else []
        return np.diff(np.concatenate([[0], flat, rest])).astype(np.int64)


def stretched(line: Line, length: int, longest: int) -> Line:
    """64 cells to the 1,024 of the square, the padding cut off, then to the frame: exact in float64."""
    square = interpolated(line, SQUARE)[: SQUARE * length // longest]
    return interpolated(square, length)


def interpolated(line: Line, length: int) -> Line:
    values: Any = torch.nn.functional.interpolate(torch.from_numpy(line)[None, None], length, mode="linear")
    return values[0, 0].numpy()


@dataclass(frozen=True)
class HugeCrop:
    crop_hw: tuple[int, int]
    index: int

    @property
    def resized_hw(self) -> tuple[int, int]:
        return SQUARE * self.crop_hw[0] // max(self.crop_hw), SQUARE * self.crop_hw[1] // max(self.crop_hw)


class Planting:
    """Answers each point of the crop `index` with its shapes, the first one with the highest score."""

    input_side = SQUARE
    points_at_once = crops_at_once = None

    def __init__(self, by_crop: dict[int, list[Shape]]) -> None:
        self.by_crop = by_crop
        self.outputs_per_prompt = max(map(len, by_crop.values()))
        self.met = 0

    def spare_memory(self) -> None:
        """Takes none."""

    def encode(self, crops_HW3: Sequence[npt.NDArray[np.uint8]]) -> list[HugeCrop]:
        self.met += len(crops_HW3)
        return [HugeCrop((c.shape[0], c.shape[1]), self.met - len(crops_HW3) + i) for i, c in enumerate(crops_HW3)]

    def decode(self, crop: HugeCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float) -> Predictions:
        shapes = self.by_crop.get(crop.index, [])
        scores_PM = torch.zeros(len(points_xy_P2), self.outputs_per_prompt)
        logits_PMhw = torch.full((*scores_PM.shape, SIDE, SIDE), OUT)
        for number, shape in enumerate(shapes):
            scores_PM[:, number] = 1 - number / 100
            logits_PMhw[:, number] = shape.logits_hw()
        return Predictions(scores_PM, scores_PM > pred_iou_thresh, logits_PMhw)


def check(mask: Mask, run_M: npt.NDArray[np.int64]) -> None:
    assert np.array_equal(unpacked(mask.counts), run_M)
    assert mask.area == int(run_M[1::2].sum())
    ends = run_M.cumsum()
    columns = np.stack([ends[:-1:2], ends[1::2] - 1]) // HW[0]
    x, _, w, _ = mask.bbox_xywh
    assert (x, x + w) == (columns.min(), columns.max())


SHAPES = {
    "all of the image": Shape(band(0, SIDE), band(0, SIDE)),
    "a band of columns across position 2^31": Shape(band(MIDDLE - 1, MIDDLE + 2), band(0, SIDE)),
    "rows of every column": Shape(band(0, SIDE), band(20, 23)),
    "the last corner": Shape(band(62, SIDE), band(38, SIDE)),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Mask]:
    recipe = Recipe(points_per_side=1, stability_score_thresh=0.0, min_mask_region_area=2 * CELL**2)
    [result] = generate_masks([IMAGE_HW3], Planting({0: list(SHAPES.values())}), recipe)
    return dict(zip(SHAPES, result.masks, strict=True))


@pytest.mark.parametrize("name", list(SHAPES))
def test_masks_beyond_2_31_pixels_have_their_runs_area_and_box(found: dict[str, Mask], name: str) -> None:
    """Measured, traced and looked through for small flaws, of which they have none."""
    assert PIXELS > 2**31
    check(found[name], SHAPES[name].runs(HW))


def test_the_numbers_are_those_that_32_bits_do_not_hold(found: dict[str, Mask]) -> None:
    """If the shapes did not reach beyond them, this file would prove nothing."""
    whole, band_, rows, corner = found.values()
    assert whole.area == PIXELS
    assert whole.bbox_xywh == (0.0, 0.0, HW[1] - 1.0, HW[0] - 1.0)
    start, length = (int(value) for value in unpacked(band_.counts)[:2])
    assert start < 2**31 < start + length
    assert len(unpacked(rows.counts)) == 2 * HW[1] + 1
    assert int(unpacked(corner.counts)[0]) > 2**31
    assert corner.bbox_xywh[0] + corner.bbox_xywh[2] == HW[1] - 1


def test_pycocotools_reads_them_alike(found: dict[str, Mask]) -> None:
    """Its runs and areas have 32 bits without a sign, which is enough up to 2^32 pixels."""
    for mask in found.values():
        rle: Any = {"size": list(HW), "counts": mask.counts}
        x, y, w, h = mask.bbox_xywh
        assert int(coco.area(rle)) == mask.area
        assert coco.toBbox(rle).tolist() == [x, y, w + 1, h + 1]


def test_a_hole_and_an_island_behind_2_31_go_and_what_is_large_stays() -> None:
    """The clean-up walks from column to column by positions."""
    island = Shape(band(60, 61), band(37, 38))
    hole = Shape(-band(61, 62), -band(36, 37))
    logits_hw = hole.logits_hw()
    assert logits_hw[36, 61] < 0 < logits_hw[35, 61]
    few = 4 * CELL**2
    recipe = Recipe(points_per_side=1, stability_score_thresh=0.0, min_mask_region_area=few, drop_if_largest_below=few)
    [result] = generate_masks([IMAGE_HW3], Planting({0: [hole, island]}), recipe)
    [filled] = result.masks
    assert filled.area == PIXELS
    assert result.funnel.too_small == 1


def test_a_mask_of_a_crop_is_moved_to_its_place_in_the_frame() -> None:
    """The lower right window of 2 x 2 begins at position 1.3 billion, and its masks lie around 2^31."""
    recipe = Recipe(
        points_per_side=1, stability_score_thresh=0.0, crop_n_layers=1, crop_overlap_ratio=0.0, crop_edge_tolerance=0
    )
    shape = Shape(band(30, 50), band(10, 20))
    [result] = generate_masks([IMAGE_HW3], Planting({4: [shape]}), recipe)
    [mask] = result.masks
    assert mask.crop_box_xywh == (32_768.0, 20_480.0, 32_768.0, 20_480.0)
    inside = shape.runs((HW[0] // 2, HW[1] // 2))
    ends = inside.cumsum()[:-1].reshape(-1, 2)
    column, row = np.divmod(ends - [0, 1], HW[0] // 2)
    place = (column + HW[1] // 2) * HW[0] + row + HW[0] // 2 + [0, 1]
    assert place.min() < 2**31 < place.max()
    check(mask, np.diff(np.concatenate([[0], place.ravel(), [PIXELS]])))
