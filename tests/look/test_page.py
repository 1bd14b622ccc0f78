"""The page: what it shows, and that nothing in it loads, runs or forges anything."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.look.drawing import GREY
from pipeline.look.page import page
from pipeline.look.sample import Sample, sample_images
from pipeline.settings import Settings
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from tests.fakes_run import Image_HW3, drawn_image
from tests.look.conftest import HOSTILE
from tests.output.test_verify import run_without_a_cluster


class Tags(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def sampled(context: WorkerContext, store: Store) -> Sample:
    return sample_images(context.out, store, images=12, seed=0)


def pixels(image: dict[str, str | None]) -> Image_HW3:
    data = (image["src"] or "").removeprefix("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))


def test_each_image_is_beside_its_masks_with_its_name_size_and_count(context: WorkerContext, store: Store) -> None:
    """Equal sizes, equal pixels where no mask is (JPEG apart), other ones where masks are."""
    sample = sampled(context, store)
    html = Tags(page(sample, store))
    images = html.all("img")
    assert len(images) == 2 * len(sample.images) == 14
    for number, each in enumerate(sample.images):
        row, count = each.row, len(each.row.masks)
        plain, drawn = images[2 * number], images[2 * number + 1]
        assert plain["alt"] == row.file_name
        assert drawn["alt"] == f"{row.file_name} with {count} masks drawn over it"
        assert f"{row.width} x {row.height}, {count} masks" in html.text
        source = np.asarray(Image.open(row.source).convert("RGB")).astype(int)
        assert np.abs(pixels(plain) - source).mean() < 6
        assert np.abs(pixels(drawn) - source).mean() > 6
    assert page(sample, store) == page(sampled(context, store), store)


def test_names_are_text_whatever_is_in_them(context: WorkerContext, store: Store) -> None:
    """A file name comes from whoever made the file."""
    text = page(sampled(context, store), store)
    html = Tags(text)
    assert HOSTILE not in text
    assert f"{HOSTILE}" in html.text
    assert {tag for tag, _ in html.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "p", "main"),
        *("figure", "figcaption", "strong", "span", "div", "img"),
    }
    assert not any(name.startswith("on") or name == "style" for _, attributes in html.tags for name in attributes)
    turned = sampled(context, store)
    turned.images[0] = replace(turned.images[0], row=replace(turned.images[0].row, file_name="a\u202egpj.\ud800"))
    assert r"a\u202egpj.\ud800" in page(turned, store)


def test_the_policy_allows_pictures_inside_the_page_and_its_own_style_alone(
    context: WorkerContext, store: Store
) -> None:
    """Should a name get through after all, the browser neither runs nor loads it. The hash is that of the style."""
    text = page(sampled(context, store), store)
    html = Tags(text)
    [policy] = [meta["content"] for meta in html.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (policy or "").split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{sha256}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert "prefers-color-scheme: dark" in style
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in html.all("img"))


def test_an_image_that_is_gone_or_changed_is_a_frame_with_the_reason_and_its_masks_lie_on_grey(
    context: WorkerContext, pictures: Path, store: Store
) -> None:
    """Masks over other pixels than theirs would be a lie."""
    (pictures / "im1.png").unlink()
    (pictures / "im2.png").write_bytes(drawn_image(2)[:-1] + b"!")
    (pictures / "im3.png").write_bytes(b"")
    html = Tags(page(sampled(context, store), store))
    assert len(html.all("img")) == 11
    reasons = re.findall("The image is not shown: (.*)", html.text)
    assert len(reasons) == 3
    assert "im1.png" in reasons[0]
    assert "im2.png has changed since the masks were made" in reasons[1]
    assert "im3.png ends at byte 0" in reasons[2]
    gone = [image for image in html.all("img") if (image["alt"] or "").startswith(("im1.png", "im2.png", "im3.png"))]
    assert len(gone) == 3
    assert all((np.abs(pixels(image).astype(int) - GREY).max(axis=2) < 12).any() for image in gone)


def test_an_image_that_was_touched_is_still_the_one_that_was_planned(
    context: WorkerContext, pictures: Path, store: Store
) -> None:
    """A copied folder has new times; its bytes are what counts."""
    for path in pictures.iterdir():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    assert "not shown" not in page(sampled(context, store), store)


def test_masks_that_cannot_be_read_cost_their_own_picture_alone(context: WorkerContext, store: Store) -> None:
    """A damaged mask in a tar is found only when it is drawn."""
    sample = sampled(context, store)
    row = sample.images[0].row
    damaged = replace(row, masks=(replace(row.masks[0], counts="0"), *row.masks[1:]))
    sample.images[0] = replace(sample.images[0], row=damaged)
    html = Tags(page(sample, store))
    assert len(html.all("img")) == 13
    assert html.text.count("The masks are not shown: the run lengths of a mask do not fill its image") == 1


def test_the_page_says_what_it_shows_of_what(looked_at: Settings, store: Store) -> None:
    """A sample of an unfinished run must not pass for the whole."""
    context = run_without_a_cluster(looked_at, store, chunks=2)
    sorted((Path(context.out) / "data").iterdir())[0].write_bytes(b"")
    text = " ".join(Tags(page(sampled(context, store), store)).text.split())
    assert "of the 8 images of this run, sampled with seed 0 from 2 of its 2 parts" in text
    assert "Images without masks are left out." in text
    assert "The run is not finished: 2 of 3 parts are there." in text
    assert "Parts that cannot be used: pictures-00000.parquet" in text
