"""One finished output of images with odd names, and one with failures."""

from __future__ import annotations

import pytest

from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.chunk import WorkerContext
from tests.export.making import make_output, write_source


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> WorkerContext:
    """Twelve images in three parts; one cannot be read, and one has no masks. Read only."""
    folder = tmp_path_factory.mktemp("exported")
    return make_output(write_source(folder / "in.tar"), str(folder / "out"), connect(StoreSettings()))
