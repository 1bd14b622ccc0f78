"""One output of rows that were drawn, finished, in either format."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.records import ImageRow
from pipeline.settings import Format, StoreSettings
from pipeline.storage.connect import connect
from tests.report.making import drawn_rows, write_output


@pytest.fixture(scope="session")
def rows() -> list[ImageRow]:
    """Forty-two images: eleven parts."""
    return drawn_rows(42)


@pytest.fixture(scope="session")
def outs(rows: list[ImageRow], tmp_path_factory: pytest.TempPathFactory) -> dict[Format, str]:
    """Read only."""
    folder = tmp_path_factory.mktemp("outs")
    store = connect(StoreSettings())
    for format in Format:
        write_output(rows, str(folder / format), store, format=format)
    return {format: str(Path(folder / format)) for format in Format}


@pytest.fixture
def out(outs: dict[Format, str]) -> str:
    """The one in Parquet."""
    return outs[Format.PARQUET]
