"""Parts as columns: the same numbers as their rows, and little is read for a few of them."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import DamagedError, DeniedError
from pipeline.records import ImageRow
from pipeline.settings import Format
from pipeline.storage.columns import ImageColumns, MaskColumns, open_columns
from pipeline.storage.parts import write_part
from pipeline.storage.ranged import RangedFile
from pipeline.storage.store import ObjectInfo
from tests.storage.samples import METADATA, a_mask, a_row, some_rows

BOTH = pytest.mark.parametrize("format", list(Format))


class OneObject:
    """A store of one object that notes what is read of it, or refuses."""

    def __init__(self, data: bytes, *, refuses: bool = False) -> None:
        self._data, self._refuses = data, refuses
        self.lengths: list[int] = []

    def read(self, uri: str, *, offset: int, length: int, etag: str) -> bytes:
        if self._refuses:
            raise DeniedError(f"{uri} refused")
        assert (uri, etag) == ("a/part", "tag")
        self.lengths.append(length)
        return self._data[offset : offset + length]


def ranged(data: bytes, *, refuses: bool = False) -> tuple[Any, OneObject]:
    store: Any = OneObject(data, refuses=refuses)
    return RangedFile(ObjectInfo("a/part", len(data), "tag"), store), store


def assert_rows(images: ImageColumns, masks: MaskColumns) -> None:
    rows = some_rows()
    assert images.file_name_I == [row.file_name for row in rows]
    assert images.source_I == [row.source for row in rows]
    assert images.status_I == [str(row.status) for row in rows]
    assert images.error_I == [row.error for row in rows]
    for found, expected in (
        (images.image_id_I, [row.image_id for row in rows]),
        (images.width_I, [row.width for row in rows]),
        (images.height_I, [row.height for row in rows]),
        (images.masks_I, [len(row.masks) for row in rows]),
    ):
        assert found.dtype == np.int64
        assert found.tolist() == expected
    own = [mask for row in rows for mask in row.masks]
    assert masks.box_xywh_N4.tolist() == [list(mask.bbox_xywh) for mask in own]
    assert masks.area_N.tolist() == [mask.area for mask in own]
    assert masks.predicted_iou_N.tolist() == [mask.predicted_iou for mask in own]
    assert masks.stability_N.tolist() == [mask.stability_score for mask in own]
    assert masks.crop_layer_N.tolist() == [mask.crop_layer for mask in own]
    assert masks.output_N.tolist() == [mask.multimask_index for mask in own]
    ends = zip(masks.start_N1, masks.start_N1[1:], strict=False)
    assert [masks.packed[start:stop].tobytes().decode() for start, stop in ends] == [mask.counts for mask in own]


@pytest.fixture(scope="module")
def large_rows() -> list[ImageRow]:
    """Half a megabyte of characters that no codec makes shorter, as run lengths are."""
    dice = random.Random(0)
    return [
        a_row(image_id, masks=tuple(replace(a_mask(n), counts=dice.randbytes(120).hex()) for n in range(image_id % 40)))
        for image_id in range(100)
    ]


@BOTH
def test_the_columns_are_those_of_the_rows(format: Format) -> None:
    """Of the bytes, and of ranges of a store."""
    data = write_part(some_rows(), format=format, metadata=METADATA)
    for file in (io.BytesIO(data), ranged(data)[0]):
        part = open_columns(file, format=format)
        assert part.rows == len(some_rows())
        assert METADATA.items() <= part.metadata.items()
        assert_rows(part.images(), part.masks())


@BOTH
def test_a_part_without_masks_has_empty_columns(format: Format) -> None:
    """All its images may have failed."""
    rows = [row for row in some_rows() if not row.masks]
    part = open_columns(io.BytesIO(write_part(rows, format=format, metadata={})), format=format)
    masks = part.masks()
    assert part.images().masks_I.tolist() == [0, 0, 0]
    assert (masks.box_xywh_N4.shape, len(masks.area_N), masks.start_N1.tolist()) == ((0, 4), 0, [0])


@BOTH
def test_of_a_large_part_the_images_are_read_without_the_masks(large_rows: list[ImageRow], format: Format) -> None:
    """Masks are nine tenths of a part."""
    data = write_part(large_rows, format=format, metadata=METADATA)
    file, store = ranged(data)
    images = open_columns(file, format=format).images()
    assert images.masks_I.tolist() == [len(row.masks) for row in large_rows]
    assert sum(store.lengths) < len(data) / 3


@BOTH
def test_what_is_no_part_or_is_cut_is_named(large_rows: list[ImageRow], format: Format) -> None:
    """And a store that refuses is no damage: its own error comes out."""
    data = write_part(large_rows, format=format, metadata=METADATA)
    for damaged in (b"", b"no part", data[:200], data[:600]):
        with pytest.raises(DamagedError, match="that part is damaged"):
            open_columns(io.BytesIO(damaged), format=format, name="that part")
    with pytest.raises(DeniedError, match="a/part refused"):
        open_columns(ranged(data, refuses=True)[0], format=format)
    file, store = ranged(data)
    part = open_columns(file, format=format)
    store._refuses = True
    with pytest.raises(DeniedError, match="a/part refused"):
        part.masks()


def test_a_damaged_page_is_found(large_rows: list[ImageRow]) -> None:
    """Parquet's pages have checksums."""
    data = bytearray(write_part(large_rows, format=Format.PARQUET, metadata={}))
    data[len(data) // 2] ^= 1
    part = open_columns(io.BytesIO(bytes(data)), format=Format.PARQUET, name="that part")
    with pytest.raises(DamagedError, match="that part is damaged"):
        part.masks()
