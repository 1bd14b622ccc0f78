"""Runs that are planned and not begun, and a store that tells which parts were read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.settings import Format, Settings, StoreSettings
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from tests.fakes_run import ReadsNoted, drawn_image, write_folder
from tests.small_runs import context_of, small_run


@pytest.fixture
def context(settings: Settings, store: Store) -> WorkerContext:
    """A run of five parts, of which none is there yet."""
    return context_of(settings, store)


@pytest.fixture
def reads() -> ReadsNoted:
    return ReadsNoted(StoreSettings(retry_deadline_s=1.0))


@pytest.fixture(params=list(Format))
def with_failures(request: pytest.FixtureRequest, tmp_path: Path, store: Store) -> WorkerContext:
    """A run of two parts in either format, with images that cannot be decoded and one that is too large."""
    images = {"a.png": drawn_image(1), "b.png": b"no image", "c.png": b"", "d.png": drawn_image(2)}
    source = write_folder(tmp_path / "own", images)
    settings = replace(small_run(source, tmp_path / "out"), format=request.param)
    least = min(read_size(images["a.png"]), read_size(images["d.png"]))
    return context_of(replace(settings, run=replace(settings.run, max_pixels=least)), store)


def read_size(data: bytes) -> int:
    """Pixels of a PNG, by its header."""
    return int.from_bytes(data[16:20]) * int.from_bytes(data[20:24])
