"""Which mask lies in which, held against pixels that the test counts itself."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.errors import ConfigError, DamagedError
from pipeline.export.families import SMALLER, families_of
from pipeline.export.records import ExportSettings, Form
from pipeline.masks.overlap import containers
from pipeline.masks.rle import pack_pixels
from pipeline.records import ImageRow, Status
from pipeline.work.chunk import WorkerContext
from tests.export.making import exported, ok_rows, read_json
from tests.report.making import drawn_masks, pixels

Mask_HW = npt.NDArray[np.bool_]


def witness(masks: list[Mask_HW], inside: float) -> list[tuple[int, int]]:
    """Parent and depth of each, pixel by pixel."""
    areas = [int(mask_HW.sum()) for mask_HW in masks]
    parents: list[int] = []
    for n, mask_HW in enumerate(masks):
        holding = [
            (areas[other], other)
            for other, other_HW in enumerate(masks)
            if areas[n] and areas[n] <= SMALLER * areas[other] and (mask_HW & other_HW).sum() >= inside * areas[n]
        ]
        parents.append(min(holding)[1] if holding else -1)
    depths: list[int] = []
    for parent in parents:
        depth = 0
        while parent >= 0:
            parent, depth = parents[parent], depth + 1
        depths.append(depth)
    return list(zip(parents, depths, strict=True))


def row_of(masks: list[Mask_HW]) -> ImageRow:
    hw = masks[0].shape
    drawn = drawn_masks((9, 9), len(masks), np.random.default_rng(0))
    described = tuple(
        type(mask)(pack_pixels(mask_HW), *astuple(mask)[1:]) for mask, mask_HW in zip(drawn, masks, strict=True)
    )
    return ImageRow(1, "a.png", "/a.png", Status.OK, width=hw[1], height=hw[0], masks=described)


def rectangles(*bounds: tuple[int, int, int, int]) -> list[Mask_HW]:
    masks: list[Mask_HW] = []
    for y0, y1, x0, x1 in bounds:
        masks.append(np.zeros((40, 60), np.bool_))
        masks[-1][y0:y1, x0:x1] = True
    return masks


@given(some.integers(0, 2**32 - 1), some.integers(1, 14), some.sampled_from([0.6, 0.9, 1.0]))
@settings(max_examples=60, deadline=None)
def test_parents_and_depths_are_those_that_pixels_give(seed: int, count: int, inside: float) -> None:
    """Ellipses, rectangles and rings of every size, in frames that cut them."""
    dice = np.random.default_rng(seed)
    hw = (int(dice.integers(5, 60)), int(dice.integers(5, 60)))
    masks = drawn_masks(hw, count, dice)
    row = ImageRow(1, "a.png", "/a.png", Status.OK, width=hw[1], height=hw[0], masks=(*masks, masks[0]))
    found = families_of(row, inside=inside)
    assert [(family.parent, family.depth) for family in found] == witness(pixels(row), inside)


def test_wholes_parts_and_subparts_are_told_apart() -> None:
    """A car, its wheel, the wheel's hub; a copy of the wheel is its sibling, and what leans out is no part."""
    car, wheel, hub = (5, 30, 5, 55), (15, 25, 10, 30), (18, 21, 13, 17)
    copy, leaning, alone = (15, 25, 10, 29), (2, 15, 40, 50), (35, 39, 1, 9)
    row = row_of(rectangles(hub, wheel, car, copy, leaning, alone))
    told = [(family.parent, family.depth) for family in families_of(row, inside=0.9)]
    assert told == [(3, 2), (2, 1), (-1, 0), (2, 1), (-1, 0), (-1, 0)]
    assert families_of(row, inside=0.75)[4] == (2, 1)


def test_images_without_masks_and_empty_masks_have_no_family() -> None:
    """Zero masks is a valid result at every stage."""
    assert containers([], (4, 4), inside=0.9, smaller=0.9).tolist() == []
    empty = np.zeros((40, 60), np.bool_)
    row = row_of([empty, *rectangles((0, 40, 0, 60))])
    assert families_of(row, inside=0.9) == ((-1, 0), (-1, 0))
    short = ImageRow(1, "a.png", "/a.png", Status.OK, width=59, height=40, masks=row.masks)
    with pytest.raises(DamagedError, match=r"a\.png is damaged"):
        families_of(short, inside=0.9)


@pytest.mark.parametrize("form", [Form.SA1B, Form.COCO, Form.LABEL_MAP])
def test_every_form_has_the_table_beside_it(output: WorkerContext, tmp_path: Path, form: Form) -> None:
    """By annotation id; COCO's annotations have the two numbers themselves."""
    exported(output, tmp_path, form, hierarchy=True)
    lines = {int(each["id"]): each for each in csv.DictReader(io.StringIO((tmp_path / "hierarchy.csv").read_text()))}
    deepest = 0
    for row in ok_rows(output):
        first = row.first_annotation_id
        for place, (parent, depth) in enumerate(witness(pixels(row), 0.9)):
            assert lines.pop(first + place) == {
                "image_id": str(row.image_id),
                "id": str(first + place),
                "parent_id": str(first + parent) if parent >= 0 else "",
                "depth": str(depth),
                "level": ("whole", "part", "subpart")[min(depth, 2)],
            }
            deepest = max(deepest, depth)
    assert not lines
    assert deepest >= 2
    if form is Form.COCO:
        annotations = read_json(tmp_path / "instances.json")["annotations"]
        found = {each["id"]: (each["parent_id"], each["depth"]) for each in annotations}
        for row in ok_rows(output):
            for place, (parent, depth) in enumerate(witness(pixels(row), 0.9)):
                parent_id = row.first_annotation_id + parent if parent >= 0 else None
                assert found[row.first_annotation_id + place] == (parent_id, depth)


def test_a_share_that_makes_no_sense_is_refused() -> None:
    """With half of a mask or less it could lie in two masks that do not meet."""
    for inside in (0.5, 1.1, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"export\.inside"):
            ExportSettings(inside=inside)
