"""The command: what it says, where its page goes, how it refuses; and the page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.compare import CompareJob, main
from jobs.compare import compare as compare_job
from pipeline.comparison.page import page
from pipeline.comparison.records import Comparison
from pipeline.errors import ConfigError
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from tests.browser import Browsing, browsing
from tests.commands import Command, command_of, snapshot
from tests.comparison.conftest import OTHER, Make
from tests.fakes_run import drawn_image, write_folder
from tests.look.conftest import HOSTILE
from tests.look.test_page import Tags

__all__ = ["browsing"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m jobs.compare` with these overrides: its exit code and what it said."""
    return command_of("compare", main, monkeypatch, capsys)


def photographs_on(path: Path) -> int:
    """Pictures of images, which are JPEG; charts are not."""
    return sum((image["src"] or "").startswith("data:image/jpeg") for image in Tags(path.read_text()).all("img"))


def test_the_command_says_what_differs_and_leaves_both_outputs_as_they_are(
    make: Make, command: Command, tmp_path: Path
) -> None:
    """Outputs are data that others read; the page lies beside A and replaces an earlier one."""
    a, b = make("a"), make("b", OTHER)
    before = {**snapshot(Path(a.out)), **snapshot(Path(b.out))}
    code, said, errors = command(f"a={a.out}", f"b={b.out}", "n=2")
    assert (code, errors) == (0, "")
    assert "recipe.points_per_side: 4 in A, 5 in B" in said
    assert "8 in both (8 by their bytes, 0 by name)" in said
    assert re.search(r"mean IoU 0\.\d{4} over A's masks", said)
    path = tmp_path / "a-comparison.html"
    assert said.endswith(f"  page        {path}\n")
    assert photographs_on(path) == 4
    assert {**snapshot(Path(a.out)), **snapshot(Path(b.out))} == before
    assert "100 % the same" in command(f"a={a.out}", f"b={a.out}")[1]
    assert photographs_on(path) == 0


def test_what_cannot_be_compared_is_one_sentence_and_writes_nothing(
    make: Make, command: Command, tmp_path: Path
) -> None:
    """No output, one without parts, no image in common, wrong values, places inside the outputs."""
    a, b = make("a"), make("b")
    unbegun = make("unbegun", chunks=0)
    others = make("others", source=write_folder(tmp_path / "others-source", {"other.png": drawn_image(50)}))
    before = snapshot(tmp_path)
    refusals = {
        CompareJob(): "say which outputs: a=... b=...",
        CompareJob(a.out): "say which outputs",
        CompareJob(a.out, f"{tmp_path}/nowhere"): f"{tmp_path}/nowhere holds no run",
        CompareJob(unbegun.out, a.out): "has no committed part yet (0 of 3)",
        CompareJob(a.out, others.out): "have no image in common",
        CompareJob(a.out, b.out, n=-1): "n=-1 must be from 0 to 50",
        CompareJob(a.out, b.out, compare=f"{b.out}/a.html"): "is inside the output",
        CompareJob(a.out, b.out, compare=f"{a.out}/a.html"): "is inside the output",
        CompareJob(a.out, b.out, compare="page.txt"): "ends in .html",
        CompareJob(a.out, b.out, compare=f"{tmp_path}/no/a.html"): "choose another place: compare=PATH.html",
    }
    for refused, sentence in refusals.items():
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            compare_job(refused)
    code, said, errors = command(f"a={a.out}", f"b={tmp_path}/nowhere")
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert snapshot(tmp_path) == before


def test_outputs_in_a_bucket_and_on_disk_are_compared(
    make: Make,
    pictures: Path,
    s3_bucket: str,
    s3_endpoint: str,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page of a reference in a bucket goes into the current folder."""
    monkeypatch.chdir(tmp_path)
    store = StoreSettings(endpoint_url=s3_endpoint, retry_deadline_s=1.0)
    settings = make("unused", out=f"s3://{s3_bucket}/masks", through=connect(store))
    code, said, errors = command(f"a={settings.out}", f"b={make('b').out}", f'store.endpoint_url="{s3_endpoint}"')
    assert (code, errors) == (0, "")
    assert "100 % the same" in said
    assert (tmp_path / "masks-comparison.html").exists()


def test_a_broken_part_is_named_on_stderr_and_on_the_page(make: Make, command: Command, tmp_path: Path) -> None:
    """Who writes a script sees it too."""
    a, b = make("a"), make("b", OTHER)
    part = min((Path(b.out) / "data").iterdir())
    part.write_bytes(b"")
    code, _, errors = command(f"a={a.out}", f"b={b.out}")
    assert code == 0
    assert errors.startswith("Maskmill: left out: ")
    assert part.name in Tags((tmp_path / "a-comparison.html").read_text()).text


def test_an_image_that_is_gone_lies_on_grey_and_the_page_says_why(
    make: Make, compared: Callable[..., Comparison], pictures: Path
) -> None:
    """Other pixels than those of the masks would be a lie."""
    a, b = make("a"), make("b", OTHER)
    (pictures / "im1.png").write_bytes(drawn_image(1)[:-1] + b"!")
    text = Tags(page(compared(a, b))).text
    assert text.count("The image is not shown: ") == 1
    assert "im1.png has changed since the masks were made" in text


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_shows_its_pictures_asks_for_nothing_and_is_accessible(
    make: Make, compared: Callable[..., Comparison], tmp_path: Path, browsing: Browsing, *, dark: bool
) -> None:
    """One of the images has a name that is markup, which must stay text; a phone has no sideways scrolling."""
    text = page(compared(make("a"), make("b", OTHER)))
    assert HOSTILE not in text
    path = tmp_path / "compare.html"
    path.write_text(text, encoding="utf-8")
    opened = browsing.open(path, dark=dark, width=360 if dark else 1280)
    assert opened.page.locator(".pair img").count() == 14
    assert opened.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert HOSTILE in opened.page.locator("main").inner_text()
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not opened.complaints
    assert not opened.requests
    assert not opened.findings()
