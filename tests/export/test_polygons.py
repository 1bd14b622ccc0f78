"""Polygons painted again as their readers paint them, and held against the masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some
from PIL import Image, ImageDraw

from pipeline.errors import ConfigError, DamagedError
from pipeline.export.outlines import as_one, corners, parts_of
from pipeline.export.records import Form
from pipeline.masks.rle import pack_pixels
from pipeline.records import ImageRow
from pipeline.work.chunk import WorkerContext
from tests.export.making import STEMS, exported, ok_rows, read_json
from tests.report.making import pixels

Mask_HW = npt.NDArray[np.bool_]


def painted(polygons: list[npt.NDArray[Any]], hw: tuple[int, int]) -> Mask_HW:
    """As OpenCV fills them, together."""
    canvas = np.zeros(hw, np.uint8)
    cv2.fillPoly(canvas, [polygon.astype(np.int32) for polygon in polygons], 1)
    return canvas.astype(np.bool_)


def iou(a: Mask_HW, b: Mask_HW) -> float:
    return float((a & b).sum() / (a | b).sum())


def parted(mask_HW: Mask_HW) -> int:
    return cv2.connectedComponents(mask_HW.astype(np.uint8), connectivity=8)[0] - 1


def yolo_polygons(path: Path, row: ImageRow) -> list[npt.NDArray[np.int64]]:
    """As readers do it: shares times the size, the fraction cut off, or rounded in single precision."""
    lines = [line.split() for line in path.read_text().splitlines()]
    assert {line[0] for line in lines} <= {"0"}
    shares = [np.array(line[1:], np.float64).reshape(-1, 2) for line in lines]
    assert all((share > 0).all() and (share < 1).all() and len(share) >= 3 for share in shares)
    cut = [(share * (row.width, row.height)).astype(np.int64) for share in shares]
    rounded = [np.round(share.astype(np.float32) * np.array([row.width, row.height])) for share in shares]
    assert all(np.array_equal(one, other) for one, other in zip(cut, rounded, strict=True))
    return cut


def test_a_line_of_yolo_paints_its_mask(output: WorkerContext, tmp_path: Path) -> None:
    """IoU 0.9 at least, holes included; of a mask in one part every pixel."""
    exported(output, tmp_path, Form.YOLO)
    exact = 0
    for row in ok_rows(output):
        polygons = yolo_polygons(tmp_path / "labels" / f"{STEMS[row.file_name]}.txt", row)
        for polygon, mask_HW in zip(polygons, pixels(row), strict=True):
            found_HW = painted([polygon], mask_HW.shape)
            if parted(mask_HW) == 1:
                assert np.array_equal(found_HW, mask_HW)
                exact += 1
            assert iou(found_HW, mask_HW) >= 0.9
    assert exact > 50
    assert (tmp_path / "data.yaml").read_text() == "train: images\nval: images\nnames:\n  0: object\n"


def test_images_lie_where_yolo_looks_for_them(output: WorkerContext, tmp_path: Path) -> None:
    """It finds a label by putting labels/ for images/ and .txt for the extension; one without masks is background."""
    exported(output, tmp_path, Form.YOLO, images=True)
    images, labels = ({path.stem for path in (tmp_path / folder).iterdir()} for folder in ("images", "labels"))
    assert images == labels == set(STEMS.values())
    assert (tmp_path / "labels" / "im1.txt").read_bytes() == b""


def test_the_shapes_of_a_group_are_the_parts_of_a_mask(output: WorkerContext, tmp_path: Path) -> None:
    """labelme paints with Pillow, one shape after the other, and joins those of one group."""
    exported(output, tmp_path, Form.LABELME, images=True)
    several = 0
    for row in ok_rows(output):
        stem = STEMS[row.file_name]
        told = read_json(tmp_path / f"{stem}.json")
        assert (told["imagePath"], told["imageData"]) == (f"{stem}.png", None)
        assert (told["imageHeight"], told["imageWidth"]) == (row.height, row.width)
        with Image.open(tmp_path / told["imagePath"]) as image:
            assert image.size == (row.width, row.height)
        for place, mask_HW in enumerate(pixels(row)):
            shapes = [shape for shape in told["shapes"] if shape["group_id"] == place]
            assert len(shapes) == parted(mask_HW)
            canvas = Image.new("1", (row.width, row.height))
            for shape in shapes:
                assert (shape["label"], shape["shape_type"]) == ("object", "polygon")
                ImageDraw.Draw(canvas).polygon([tuple(point) for point in shape["points"]], fill=1, outline=1)
            assert iou(np.asarray(canvas), mask_HW) >= 0.9
            several += len(shapes) > 1
    assert several > 3


@example(8, 11, 2, 0.8)  # the bridge of one hole, if it is cut in too early, crosses another
@given(some.integers(1, 12), some.integers(1, 12), some.integers(0, 2**32 - 1), some.sampled_from([0.2, 0.5, 0.8]))
@settings(max_examples=150, deadline=None)
def test_the_parts_of_any_mask_paint_exactly_that_mask(height: int, width: int, seed: int, share: float) -> None:
    """Noise has every knot a border can tie: single pixels, lines, corners that touch, holes in holes."""
    mask_HW = np.random.default_rng(seed).random((height, width)) < share
    parts = parts_of(pack_pixels(mask_HW), (height, width))
    found_HW = np.zeros_like(mask_HW)
    for part in parts:
        own_HW = painted([corners(part.point_P2)], (height, width))
        assert not (own_HW & found_HW).any()
        found_HW |= own_HW
    assert np.array_equal(found_HW, mask_HW)
    assert len(parts) == parted(mask_HW)


def test_a_part_that_is_smaller_than_its_bridge_is_left_out() -> None:
    """Its line would paint more pixels than it has."""
    mask_HW = np.zeros((20, 60), np.bool_)
    mask_HW[2:12, 2:12] = mask_HW[3:8, 20:23] = mask_HW[15, 55] = True
    polygon_P2 = as_one(parts_of(pack_pixels(mask_HW), (20, 60)))
    found_HW = painted([polygon_P2], (20, 60))
    assert found_HW[2:12, 2:12].all()
    assert found_HW[3:8, 20:23].all()
    assert not found_HW[:, 30:].any()
    assert iou(found_HW, mask_HW) > 0.9
    assert [part.pixels for part in parts_of(pack_pixels(mask_HW), (20, 60))] == [100, 15, 1]


def test_a_tolerance_takes_fewer_points_and_stays_within_it(output: WorkerContext, tmp_path: Path) -> None:
    """Labels are read again at every start of a training, and stairs of single pixels tell it little."""
    for name, tolerance in (("exact", 0.0), ("near", 1.0)):
        exported(output, tmp_path / name, Form.YOLO, tolerance=tolerance)
    sizes = [sum(path.stat().st_size for path in (tmp_path / name / "labels").iterdir()) for name in ("exact", "near")]
    assert sizes[1] < 0.6 * sizes[0]
    row = max(ok_rows(output), key=lambda row: max((mask.area for mask in row.masks), default=0))
    polygons = yolo_polygons(tmp_path / "near" / "labels" / f"{STEMS[row.file_name]}.txt", row)
    place = max(range(len(row.masks)), key=lambda place: row.masks[place].area)
    assert iou(painted([polygons[place]], (row.height, row.width)), pixels(row)[place]) > 0.95
    with pytest.raises(ConfigError, match="only yolo and labelme have polygons"):
        exported(output, tmp_path / "png", Form.PNG, tolerance=1.0)
    with pytest.raises(ConfigError, match=r"export\.tolerance=-1\.0 must be from 0 to 50 pixels"):
        exported(output, tmp_path / "yolo", Form.YOLO, tolerance=-1.0)


def test_long_borders_meet_near_each_other() -> None:
    """Two combs of thousands of border points; the nearest are looked for coarsely first."""
    mask_HW = np.zeros((400, 900), np.bool_)
    mask_HW[:190, ::2] = mask_HW[:10] = mask_HW[200:, ::2] = mask_HW[390:] = True
    parts = parts_of(pack_pixels(mask_HW), mask_HW.shape)
    assert len(parts) == 2
    found_HW = painted([as_one(parts)], mask_HW.shape)
    assert (found_HW & ~mask_HW).sum() < 30
    assert (mask_HW & ~found_HW).sum() == 0


def test_run_lengths_that_do_not_fill_their_image_are_damage() -> None:
    with pytest.raises(DamagedError, match="do not fill its image"):
        parts_of(pack_pixels(np.ones((4, 4), np.bool_)), (4, 5))
