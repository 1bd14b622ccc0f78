"""Images and masks of an output, read again one by one; without a model, and without a run of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.output.labelled import open_labelled
from pipeline.settings import Settings
from pipeline.storage.images import decode_image
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder
from tests.small_runs import context_of, rows_of, work


def test_every_planned_image_has_its_own_pixels_and_the_masks_of_its_row(settings: Settings, store: Store):
    """The first and the last of each part, of a folder and of a tar; in the order of the plan."""
    context = context_of(settings, store)
    work(context)
    rows, known = rows_of(context), open_labelled(settings.out, store)
    assert len(known) == len(rows) == 13
    assert [entry.image_id for entry in known.entries] == [row.image_id for row in rows]
    for number, row in enumerate(rows):
        masks = known.masks(number)
        assert masks.hw == (row.height, row.width) == known.pixels(number, max_pixels=10**6).shape[:2]
        assert masks.counts == tuple(mask.counts for mask in row.masks)
        assert masks.scores == tuple(mask.predicted_iou for mask in row.masks)
    assert any(known.masks(number).counts for number in range(13))
    first = decode_image((Path(settings.source) / "im0.png").read_bytes(), max_pixels=10**6)
    assert (known.pixels(0, max_pixels=10**6) == first.rgb_HW3).all()


def test_an_image_that_failed_has_no_masks_and_no_size(settings: Settings, store: Store, tmp_path: Path):
    """Its row is there; who asks for its pixels is told why there are none."""
    folder = write_folder(tmp_path / "in", {"a.png": b"no image", "b.png": drawn_image(1)})
    context = context_of(replace(settings, source=str(folder)), store)
    work(context)
    known = open_labelled(settings.out, store)
    masks = known.masks(0)
    assert (masks.hw, masks.counts, masks.scores) == ((0, 0), (), ())
    assert known.masks(1).counts
    with pytest.raises(StorageError, match=r"a\.png at byte 0: "):
        known.pixels(0, max_pixels=10**6)
