"""Chunks of images in Parquet files: their rows, their outcomes, and the pixels found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import MaskDataset
from pipeline.errors import ConfigError, SourceError
from pipeline.plan.planning import create_or_load_plan
from pipeline.records import Status
from pipeline.settings import Settings
from pipeline.storage.images import decode_image
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder
from tests.output.test_verify import run_without_a_cluster
from tests.small_runs import context_of, rows_at, small_run, with_run, work

IMAGES: list[bytes | None] = [*(drawn_image(number) for number in range(5)), b"no image", None]


def write(path: Path, images: list[bytes | None]) -> Path:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column: Any = pa.array([{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(images)], kind)
    pq.write_table(pa.table({"image": column, "thumb": [b""] * len(images)}), path, row_group_size=4)
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_run(write(tmp_path / "a.parquet", IMAGES), tmp_path / "out")


def test_rows_are_those_of_the_same_images_in_a_folder(settings: Settings, store: Store, tmp_path: Path) -> None:
    """But for where they were, and for images without bytes, which no folder has."""
    run_without_a_cluster(settings, store)
    rows = rows_at(settings.out)
    assert [row.status for row in rows] == [Status.OK] * 5 + [Status.UNREADABLE] * 2
    assert [row.file_name for row in rows] == [f"{number}.png" for number in range(7)]
    assert {row.source for row in rows} == {settings.source}
    assert rows[6].error == f"row 6 of {settings.source} has no image bytes"
    folder = write_folder(tmp_path / "folder", {f"{row}.png": data for row, data in enumerate(IMAGES) if data})
    beside = small_run(folder, tmp_path / "beside")
    run_without_a_cluster(beside, store)
    for ours, theirs in zip(rows, rows_at(beside.out), strict=False):
        assert replace(ours, source="") == replace(theirs, source="")


def test_the_pixels_of_a_row_are_found_again(settings: Settings, store: Store) -> None:
    run_without_a_cluster(settings, store)
    for example, data in zip(MaskDataset(settings.out), IMAGES, strict=False):
        assert data is not None
        pixels_HW3 = decode_image(data, max_pixels=10**6).rgb_HW3
        assert np.array_equal(example["image"].numpy(), pixels_HW3.transpose(2, 0, 1))


def test_the_column_is_part_of_the_plan(settings: Settings, store: Store) -> None:
    """A resume with another one would mix images."""
    plan = context_of(settings, store).plan
    assert "run.image_column" not in plan.settings.named()
    other = with_run(settings, image_column="thumb")
    with pytest.raises(ConfigError, match=r"run\.image_column None -> 'thumb'"):
        context_of(other, store)
    elsewhere = replace(other, out=f"{settings.out}-thumb")
    assert context_of(elsewhere, store).plan.settings.image_column == "thumb"
    assert (
        create_or_load_plan(context_of(elsewhere, store).plan.settings, out=elsewhere.out, store=store).created is False
    )


def test_a_file_that_was_replaced_makes_nothing_final(settings: Settings, store: Store, tmp_path: Path) -> None:
    context = context_of(settings, store)
    write(tmp_path / "a.parquet", IMAGES[::-1])
    with pytest.raises(SourceError, match="bring the source back"):
        work(context)
    assert not (Path(settings.out) / "data").exists()
