"""A source with hostile names and failures, and outputs of it that no cluster made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import Settings
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from tests.fakes_run import drawn_image, write_folder
from tests.output.test_verify import run_without_a_cluster
from tests.small_runs import small_run

HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven images with masks, one with a hostile name, and one that is no image: three chunks."""
    images = {f"im{number}.png": drawn_image(number) for number in range(6)}
    return write_folder(tmp_path / "pictures", {**images, HOSTILE: drawn_image(9), "broken.png": b"no image"})


@pytest.fixture
def looked_at(pictures: Path, tmp_path: Path) -> Settings:
    return small_run(pictures, tmp_path / "out")


@pytest.fixture
def context(looked_at: Settings, store: Store) -> WorkerContext:
    """A finished output."""
    return run_without_a_cluster(looked_at, store)
