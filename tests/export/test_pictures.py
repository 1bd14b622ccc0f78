"""Label maps and folders of PNGs, read again by Pillow and held against rules that the test applies itself."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.export import pictures
from pipeline.export.records import Form, Wins
from pipeline.records import ImageRow
from pipeline.work.chunk import WorkerContext
from tests.export.making import STEMS, exported, ok_rows
from tests.report.making import pixels


def levels(path: Path) -> npt.NDArray[np.int64]:
    return np.asarray(Image.open(path)).astype(np.int64)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def ruled(row: ImageRow, wins: Wins) -> npt.NDArray[np.int64]:
    """Pixel by pixel over all masks at once: the smallest, or the best, of those that have it; the first of equals."""
    masks_NHW = np.array(pixels(row)).reshape(len(row.masks), row.height, row.width)
    strength_N = np.array([-mask.area if wins is Wins.SMALLEST else mask.predicted_iou for mask in row.masks])
    if not len(masks_NHW):
        return np.zeros((row.height, row.width), np.int64)
    held_NHW = np.where(masks_NHW, strength_N[:, None, None], -np.inf)
    return np.where(masks_NHW.any(0), held_NHW.argmax(0) + 1, 0)


@pytest.mark.parametrize("wins", list(Wins))
def test_each_pixel_has_the_mask_that_the_rule_gives_it(output: WorkerContext, tmp_path: Path, wins: Wins) -> None:
    """Read again and equal everywhere; the index says what stayed uncovered."""
    exported(output, tmp_path, Form.LABEL_MAP, wins=wins)
    index = {each["file_name"]: each for each in table(tmp_path / "index.csv")}
    differ = 0
    for row in ok_rows(output):
        told = index[row.file_name]
        assert told["path"] == f"{STEMS[row.file_name]}.png"
        found_HW, expected_HW = levels(tmp_path / told["path"]), ruled(row, wins)
        assert np.array_equal(found_HW, expected_HW)
        assert float(told["uncovered"]) == pytest.approx((expected_HW == 0).mean(), abs=1e-6)
        assert int(told["visible_masks"]) == len(set(expected_HW.ravel().tolist()) - {0})
        assert (told["bits"], told["masks"]) == ("8", str(len(row.masks)))
        differ += not np.array_equal(ruled(row, Wins.SMALLEST), ruled(row, Wins.BEST))
    assert differ > 5, "both rules give the same: nothing was tried"


def test_of_equal_masks_the_earlier_one_wins(output: WorkerContext) -> None:
    """A duplicate must not change a label map."""
    row = next(row for row in ok_rows(output) if row.masks)
    doubled = (*row.masks, *row.masks)
    for wins in Wins:
        once, twice = (pictures.label_map(masks, (row.height, row.width), wins) for masks in (row.masks, doubled))
        assert np.array_equal(once, twice)


def test_more_than_255_masks_take_16_bits_and_more_than_those_hold_are_left_out(
    output: WorkerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A level that is cut to 8 bits would be another mask."""
    row = next(row for row in ok_rows(output) if row.masks)
    last = row.masks[0]
    many = (*(replace(row.masks[1], predicted_iou=0.0) for _ in range(300)), replace(last, predicted_iou=9.0))
    levels_HW = pictures.label_map(many, (row.height, row.width), Wins.BEST)
    assert levels_HW.dtype == np.uint16
    (tmp_path / "deep.png").write_bytes(pictures.as_png(levels_HW))
    assert np.array_equal(levels(tmp_path / "deep.png") == 301, pixels(row)[0])
    monkeypatch.setattr(pictures, "MOST_MASKS", 5)
    found = exported(output, tmp_path / "to", Form.LABEL_MAP)
    assert (found.total.images, found.total.masks, found.total.left_out) == (1, 0, 10)
    assert "has 12 masks; a PNG has 5 at most" in found.total.reasons[0]
    assert len(table(tmp_path / "to" / "index.csv")) == 1


def test_a_folder_an_image_has_its_masks_as_the_released_command_writes_them(
    output: WorkerContext, tmp_path: Path
) -> None:
    """0 and 255, numbered from 0, and the table under the released header; no newline at its end."""
    exported(output, tmp_path, Form.PNG)
    for row in ok_rows(output):
        folder = tmp_path / STEMS[row.file_name]
        text = (folder / "metadata.csv").read_text()
        assert text.split("\n")[0] == (
            "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,stability_score,"
            "crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
        )
        assert not text.endswith("\n")
        told: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text)))
        assert len(told) == len(row.masks) == len(list(folder.glob("*.png")))
        for number, (line, mask, mask_HW) in enumerate(zip(told, row.masks, pixels(row), strict=True)):
            assert np.array_equal(levels(folder / f"{number}.png"), mask_HW * 255)
            assert [float(value) for value in line.values()] == [
                *(number, mask.area, *mask.bbox_xywh, *mask.point_xy),
                *(mask.predicted_iou, mask.stability_score, *mask.crop_box_xywh),
            ]
            assert line["bbox_x0"] == str(int(mask.bbox_xywh[0]))
    paths = {each["path"] for each in table(tmp_path / "index.csv")}
    assert paths == set(STEMS.values()) == {path.name for path in tmp_path.iterdir() if path.is_dir()} - {"_export"}


def test_a_rule_is_refused_for_a_form_that_has_none(output: WorkerContext, tmp_path: Path) -> None:
    """It would be taken for done."""
    with pytest.raises(ConfigError, match="only form=label_map"):
        exported(output, tmp_path, Form.PNG, wins=Wins.BEST)
