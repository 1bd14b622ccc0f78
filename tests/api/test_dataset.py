"""`MaskDataset`: what an example is, and who reads which part in which order."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from torch.utils.data import DataLoader

from pipeline import MaskDataset
from pipeline.errors import ConfigError, RunError, StorageError
from pipeline.records import ImageRow, Status
from pipeline.settings import Format, StoreSettings
from pipeline.storage.connect import connect
from tests.fakes_run import drawn_image, write_folder
from tests.masks.oracle import decode_counts
from tests.output.test_verify import run_without_a_cluster
from tests.small_runs import rows_at, small_run

Examples = list[dict[str, Any]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images with masks and one that is none, in three chunks."""
    images = {f"im{number}.png": drawn_image(number) for number in range(8)}
    return write_folder(tmp_path_factory.mktemp("dataset") / "pictures", {**images, "broken.png": b"no image"})


@pytest.fixture(scope="module")
def out(source: Path) -> str:
    folder = source.parent / "out"
    run_without_a_cluster(small_run(source, folder), connect(StoreSettings()))
    return str(folder)


@pytest.fixture(scope="module")
def rows(out: str) -> list[ImageRow]:
    return [row for row in rows_at(out) if row.status is Status.OK]


def ids(examples: Any) -> list[int]:
    return [example["image_id"] for example in examples]


def test_an_example_is_an_image_with_its_masks_boxes_and_scores(out: str, rows: list[ImageRow], source: Path) -> None:
    """In the order of the rows; what failed is not there."""
    examples: Examples = list(MaskDataset(out))
    assert ids(examples) == [row.image_id for row in rows]
    assert len(examples) == 8
    for example, row in zip(examples, rows, strict=True):
        assert example["file_name"] == row.file_name
        pixels_HW3 = np.asarray(Image.open(source / row.file_name).convert("RGB"))
        assert np.array_equal(example["image"].numpy(), pixels_HW3.transpose(2, 0, 1))
        expected_NHW = [decode_counts((row.height, row.width), mask.counts) for mask in row.masks]
        assert example["masks"].dtype == torch.bool
        assert np.array_equal(example["masks"].numpy(), expected_NHW)
        assert example["predicted_iou"].tolist() == pytest.approx([mask.predicted_iou for mask in row.masks])
        assert example["stability_score"].tolist() == pytest.approx([mask.stability_score for mask in row.masks])
    assert sum(len(example["masks"]) for example in examples) > 10


def test_a_box_holds_its_mask_and_nothing_more(out: str) -> None:
    for example in MaskDataset(out, images=False):
        for (x0, y0, x1, y1), mask_HW in zip(example["boxes"].int().tolist(), example["masks"], strict=True):
            rows, columns = mask_HW.any(dim=1).nonzero(), mask_HW.any(dim=0).nonzero()
            assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("form", ["rle", "none"])
def test_masks_come_in_the_form_that_is_asked_for(out: str, rows: list[ImageRow], form: str) -> None:
    for example, row in zip(MaskDataset(out, masks=form, images=False), rows, strict=True):
        assert "image" not in example
        if form == "none":
            assert "masks" not in example
        else:
            assert [each["counts"] for each in example["masks"]] == [mask.counts for mask in row.masks]
            assert [coco.area(each) for each in example["masks"]] == [mask.area for mask in row.masks]
        assert len(example["boxes"]) == len(row.masks)


def test_the_tar_format_gives_the_same_examples(source: Path, rows: list[ImageRow], tmp_path: Path) -> None:
    settings = replace(small_run(source, tmp_path / "tars"), format=Format.COCO_RLE)
    run_without_a_cluster(settings, connect(StoreSettings()))
    examples: Examples = list(MaskDataset(settings.out, masks="rle", images=False))
    assert [[each["counts"] for each in example["masks"]] for example in examples] == [
        [mask.counts for mask in row.masks] for row in rows
    ]


def test_every_image_comes_once_over_ranks_and_workers(out: str, rows: list[ImageRow]) -> None:
    """Also if there are more of them than parts."""
    for world_size in (1, 2, 5):
        shares = [
            ids(MaskDataset(out, images=False, shuffle=True, rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]
        assert Counter(chain.from_iterable(shares)) == Counter(row.image_id for row in rows)


def test_worker_processes_share_the_parts(out: str, rows: list[ImageRow]) -> None:
    """Real ones, as a DataLoader starts them."""
    loader = DataLoader(MaskDataset(out, masks="none", images=False), batch_size=None, num_workers=2)
    assert Counter(ids(loader)) == Counter(row.image_id for row in rows)


def test_the_order_follows_from_the_seed_and_the_epoch(out: str, rows: list[ImageRow]) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        dataset = MaskDataset(out, images=False, shuffle=True, seed=seed)
        dataset.set_epoch(epoch)
        return ids(dataset)

    orders = [order(seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert orders[0] == order(1, 0)
    assert len({tuple(each) for each in orders}) == 4
    assert all(sorted(each) == sorted(row.image_id for row in rows) for each in orders)


def test_an_image_that_changed_is_an_error_or_left_out(out: str, source: Path, tmp_path: Path) -> None:
    """Masks are never shown with other pixels."""
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    settings = small_run(copy, tmp_path / "out")
    run_without_a_cluster(settings, connect(StoreSettings()))
    (copy / "im3.png").write_bytes(drawn_image(40))
    with pytest.raises(StorageError, match=r"im3\.png"):
        list(MaskDataset(settings.out))
    assert len(list(MaskDataset(settings.out, skip_missing=True))) == 7
    assert len(list(MaskDataset(settings.out, images=False))) == 8


def test_a_part_of_another_run_is_refused(out: str, source: Path, tmp_path: Path) -> None:
    settings = small_run(source, tmp_path / "out")
    run_without_a_cluster(settings, connect(StoreSettings()))
    first, second, *_ = sorted((tmp_path / "out" / "data").iterdir())
    shutil.copy(second, first)
    with pytest.raises(RunError, match="make verify OUT="):
        list(MaskDataset(settings.out))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"storage": {"endpoint": "http://x"}},
            "there is no setting storage.endpoint; did you mean storage.endpoint_url",
        ),
        ({"masks": "polygons"}, "masks=polygons must be one of bool, rle, none"),
        ({"rank": 1}, "rank and world_size belong together"),
        ({"rank": 2, "world_size": 2}, "rank=2 must be from 0 to 1"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(out: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MaskDataset(out, **arguments)
    assert sentence in str(caught.value)


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        MaskDataset(str(tmp_path))
