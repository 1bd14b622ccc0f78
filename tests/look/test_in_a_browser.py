"""The page of `make look` in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.look.page import page
from pipeline.look.sample import sample_images
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from tests.browser import Browsing, browsing

__all__ = ["browsing"]


@pytest.mark.parametrize(("dark", "background"), [(False, "rgb(255, 255, 255)"), (True, "rgb(22, 22, 22)")])
def test_the_page_shows_every_picture_asks_for_nothing_and_is_accessible(
    context: WorkerContext, store: Store, tmp_path: Path, browsing: Browsing, *, dark: bool, background: str
) -> None:
    """One of the images has a name that is markup, which must stay text."""
    path = tmp_path / "look.html"
    path.write_text(page(sample_images(context.out, store, images=12, seed=0), store), encoding="utf-8")
    opened = browsing.open(path, dark=dark)
    assert opened.page.locator("figure img").count() == 14
    assert opened.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert not opened.complaints
    assert not opened.requests
    assert not opened.findings()
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == background
