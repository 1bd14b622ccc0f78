"""The command: what it says, where its page goes, how it refuses; and the page in a real browser."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from jobs.explain import ExplainJob, explain_image, main
from pipeline.errors import ConfigError
from pipeline.settings import ModelSettings
from tests.browser import Browsing, browsing
from tests.commands import Command, command_of, snapshot
from tests.explain.test_explanation import IMAGE
from tests.look.conftest import HOSTILE
from tests.look.test_page import Tags

__all__ = ["browsing"]

QUICK = ("recipe=sam", "recipe.points_per_side=4", "recipe.crop_n_layers=1")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m jobs.explain` with these overrides: its exit code and what it said."""
    return command_of("explain", main, monkeypatch, capsys)


def picture(path: Path) -> Path:
    sink = io.BytesIO()
    Image.fromarray(IMAGE).save(sink, "PNG")
    path.write_bytes(sink.getvalue())
    return path


def test_the_command_writes_one_page_into_the_current_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says how many candidates became how many masks, as the page does."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    code, said, errors = command(f"image={picture(tmp_path / 'scene.png')}", *QUICK)
    assert (code, errors) == (0, "")
    [path] = folder.iterdir()
    assert path.name == "scene-explain.html"
    found = re.fullmatch(r"Maskmill: ([\d,]+) candidates, ([\d,]+) masks: (.*)\n", said)
    assert found is not None
    assert found[1] == "240"
    text = " ".join(Tags(path.read_text()).text.split())
    assert f"{found[1]} candidates, {found[2]} mask" in text
    assert "recipe.pred_iou_thresh=0.8" in text


def test_what_cannot_be_explained_is_one_sentence_and_writes_nothing(command: Command, tmp_path: Path) -> None:
    """No image, a broken one, one that is too large, weights that are none, a page where none can be."""
    image = str(picture(tmp_path / "scene.png"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    before = snapshot(tmp_path)
    refusals = {
        ExplainJob(): "say which image",
        ExplainJob(f"{tmp_path}/nowhere.png"): "cannot be read",
        ExplainJob(f"{tmp_path}/broken.png"): "cannot be used: unreadable",
        ExplainJob(image, max_pixels=100): "cannot be used: too_large",
        ExplainJob(image, max_bytes=100): "cannot be read",
        ExplainJob(image, threads=0): "threads=0 must be 1 or more",
        ExplainJob(image, explain="page.txt"): "ends in .html",
        ExplainJob(image, explain="s3://bucket/page.html"): "must be a local path",
        ExplainJob(image, model=ModelSettings(checkpoint=f"{tmp_path}/broken.png")): "broken.png",
    }
    for refused, sentence in refusals.items():
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            explain_image(refused)
    code, said, errors = command(f"image={tmp_path}/nowhere.png")
    assert (code, said, errors.count("\n")) == (2, "", 1)
    code, _, errors = command(f"image={image}", f"explain={tmp_path}/no/a.html", *QUICK)
    assert code == 2
    assert "choose another place: explain=PATH.html" in errors
    assert snapshot(tmp_path) == before


def test_the_page_shows_every_picture_asks_for_nothing_and_is_accessible(
    command: Command, tmp_path: Path, browsing: Browsing
) -> None:
    """The image has a name that is markup, which must stay text. Light on a desk, dark on a phone."""
    image, path = picture(tmp_path / HOSTILE), tmp_path / "explain.html"
    code, _, errors = command(f'image="{image}"', f"explain={path}", *QUICK)
    assert (code, errors) == (0, "")
    assert HOSTILE not in path.read_text()
    for dark, width in ((False, 1280), (True, 360)):
        opened = browsing.open(path, dark=dark, width=width)
        assert opened.page.locator("figure img").count() > 10
        assert opened.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert HOSTILE in opened.page.locator("h1").inner_text()
        assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert not opened.complaints
        assert not opened.requests
        assert not opened.findings()
