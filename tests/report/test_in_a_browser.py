"""The report's page in a real browser: what each key, filter and order does, and that nothing leaves the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.report.gallery import gallery_of
from pipeline.report.page import Gallery, page
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from tests.browser import Browsing, Opened, browsing, expect
from tests.report.reports import HOSTILE, empty_report, full_report, grouping
from tests.report.samples import made_sample

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

__all__ = ["browsing"]

Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, and four images of which one is gone."""
    folder = tmp_path_factory.mktemp("report")
    store = connect(StoreSettings())
    report = full_report(out=f"/data/{HOSTILE}", groupings=(grouping(HOSTILE),), broken=(f"{HOSTILE} is cut",))
    path = folder / "report.html"
    path.write_text(page(report, Gallery(gallery_of(made_sample(folder, store), store), read=2)), encoding="utf-8")
    return path


@pytest.fixture
def opened(written: Path, browsing: Browsing) -> Opened:
    return browsing.open(written)


def names(of: Page) -> list[str]:
    return of.locator(".card figcaption a").all_inner_texts()


# What follows from a click, a key or the mouse comes by events, soon and not at once: it is waited for.


def expect_details(of: Page, **expected: str) -> None:
    """By the names that the page gives its values; `_` is for all that are not named."""
    for name in ("mask", "iou", "stability", "area", "box", "point", "layer"):
        if said := expected.get(name, expected.get("_", "")):
            expect(of.locator(f"#details [data-detail={name}]")).to_have_text(said)


def viewer(of: Page) -> Locator:
    return of.get_by_role("dialog")


@pytest.mark.parametrize(("dark", "background"), [(False, "rgb(245, 247, 250)"), (True, "rgb(16, 20, 26)")])
def test_the_page_and_an_opened_image_are_accessible_and_ask_for_nothing(
    written: Path, browsing: Browsing, *, dark: bool, background: str
) -> None:
    """Names that are markup stay text. Every picture is there, and the charts are those of the colour scheme."""
    opened = browsing.open(written, dark=dark)
    of = opened.page
    assert of.evaluate("getComputedStyle(document.body).backgroundColor") == background
    assert of.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    drawn = of.locator("#funnel source").get_attribute("srcset")
    assert (of.evaluate("document.querySelector('#funnel img').currentSrc") == drawn) is dark
    assert HOSTILE in names(of)
    assert HOSTILE in of.locator("h1").inner_text()
    of.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    of.get_by_role("link", name="a.png").focus()
    assert not opened.findings()
    assert not opened.complaints
    assert not opened.requests


def test_an_opened_image_is_accessible(opened: Opened) -> None:
    """With a mask chosen. A hostile name is its title."""
    opened.page.get_by_role("link", name=HOSTILE).click()
    opened.page.keyboard.press("Tab")
    expect(opened.page.locator("#viewer-name")).to_have_text(HOSTILE)
    assert not opened.findings()
    assert not opened.complaints


def test_pointing_at_a_mask_shows_its_scores_box_area_layer_and_prompt(opened: Opened) -> None:
    """Smaller masks lie on top. Away from every mask nothing is told."""
    of = opened.page
    of.get_by_role("link", name="a.png").click()
    expect_details(of, _="-")
    stage = of.locator("#stage svg").bounding_box()
    assert stage
    scale = min(stage["width"] / 80, stage["height"] / 60)
    left, top = stage["x"] + (stage["width"] - 80 * scale) / 2, stage["y"] + (stage["height"] - 60 * scale) / 2
    of.mouse.move(left + 9 * scale, top + 9 * scale)
    expect_details(
        of,
        mask="2 of 3",
        iou="0.600",
        stability="0.800",
        area="100 px, 2.1%",
        box="9 x 9 at 5, 5",
        point="10.0, 10.0",
        layer="1, 1",
    )
    terms = ["mask", "predicted IoU", "stability", "area", "box", "prompt point", "layer, output"]
    assert of.locator("#details dt").all_inner_texts() == terms
    point, box = of.locator("#stage .point"), of.locator("#stage .box")
    assert (point.get_attribute("cx"), point.get_attribute("cy")) == ("10", "10")
    assert [box.get_attribute(name) for name in ("x", "y", "width", "height")] == ["5", "5", "10", "10"]
    of.mouse.move(left + 35 * scale, top + 35 * scale)
    expect_details(of, area="1,600 px, 33%")
    of.mouse.move(left + 75 * scale, top + 55 * scale)
    expect_details(of, _="-")
    expect(of.locator("#stage .marks")).to_have_count(0)
    assert not opened.complaints


def test_an_image_is_opened_walked_over_and_closed_with_keys_alone(opened: Opened) -> None:
    """Tab comes to one mask, arrows to the others, and the focus goes back to where it came from."""
    of = opened.page
    of.get_by_role("link", name="a.png").focus()
    of.keyboard.press("Enter")
    expect(viewer(of)).to_be_visible()
    assert viewer(of).get_attribute("aria-labelledby") == "viewer-name"
    of.keyboard.press("Tab")
    first = of.get_by_role("option", name="Mask 1 of 3: predicted IoU 0.90, stability 0.95, 1,600 pixels, layer 0")
    expect(first).to_be_focused()
    expect(of.locator("#stage .marks .ring")).to_have_count(1)
    walk = {"ArrowRight": 2, "ArrowDown": 3, "ArrowUp": 2, "ArrowLeft": 1, "End": 3, "Home": 1}
    for key, mask in walk.items():
        of.keyboard.press(key)
        expect_details(of, mask=f"{mask} of 3")
        expect(of.locator("#stage [aria-selected=true]")).to_be_focused()
    of.keyboard.press("ArrowLeft")
    expect_details(of, mask="3 of 3")
    of.keyboard.press("Tab")
    expect(of.get_by_role("button", name="Previous")).to_be_focused()
    of.keyboard.press("PageDown")
    expect(of.locator("#viewer-name")).to_have_text(HOSTILE)
    of.keyboard.press("Escape")
    expect(viewer(of)).to_have_count(0)
    expect(of.get_by_role("link", name=HOSTILE)).to_be_focused()
    expect(of.locator(".card svg")).to_have_count(4)
    assert not opened.complaints


def test_the_masks_of_each_filter_are_drawn_and_counted(opened: Opened) -> None:
    """Both ends of every range, and the layers. Reset draws all again."""
    of = opened.page
    counted, reset = of.get_by_role("status"), of.get_by_role("button", name="Reset")
    expect(counted).to_have_text("11 of 11 masks drawn")
    for label, value, left in (
        ("Least predicted IoU", "0.7", 4),
        ("Greatest predicted IoU", "0.45", 5),
        ("Least stability", "0.9", 4),
        ("Greatest stability", "0.8", 6),
        ("Least share of the image", "0.5", 7),
        ("Greatest share of the image", "0.5", 4),
    ):
        of.get_by_label(label).fill(value)
        expect(counted, label).to_have_text(f"{left} of 11 masks drawn")
        expect(of.locator(".masks path:visible")).to_have_count(left)
        reset.click()
        expect(counted).to_have_text("11 of 11 masks drawn")
    of.get_by_label("1", exact=True).uncheck()
    expect(counted).to_have_text("5 of 11 masks drawn")
    expect(of.locator("#image-10")).to_contain_text("2 of 3 masks")
    of.get_by_role("link", name="a.png").click()
    expect(counted).to_have_text("2 of 3 masks drawn")
    of.keyboard.press("Tab")
    of.keyboard.press("ArrowRight")
    expect_details(of, mask="3 of 3")
    of.get_by_label("2", exact=True).uncheck()
    expect_details(of, mask="-")
    of.get_by_label("Draw masks").uncheck()
    expect(of.locator(".masks path:visible")).to_have_count(0)
    assert not opened.complaints


def test_a_range_cannot_be_turned_inside_out(opened: Opened) -> None:
    """The other end moves along."""
    of = opened.page
    of.get_by_label("Greatest predicted IoU").fill("0.5")
    of.get_by_label("Least predicted IoU").fill("0.8")
    expect(of.get_by_label("Greatest predicted IoU")).to_have_value("0.8")
    expect(of.locator(".range .said").first).to_have_text("0.80 to 0.80")
    expect(of.get_by_role("status")).to_have_text("1 of 11 masks drawn")


def test_images_are_sorted_by_masks_scores_and_overlap(opened: Opened) -> None:
    """And the viewer's next image is the next one of that order."""
    of = opened.page
    a, hostile, c, gone = run = names(of)
    for order, expected in {
        "most masks first": [gone, a, hostile, c],
        "fewest masks first": [c, hostile, a, gone],
        "lowest predicted IoU first": [gone, hostile, a, c],
        "highest predicted IoU first": [c, a, hostile, gone],
        "lowest stability first": [gone, hostile, a, c],
        "highest stability first": [c, a, hostile, gone],
        "largest overlap first": [gone, hostile, a, c],
        "order of the run": run,
    }.items():
        of.get_by_label("Sort by").select_option(label=order)
        expect(of.locator(".card figcaption a"), order).to_have_text(expected)
    of.get_by_label("Sort by").select_option(label="most masks first")
    of.get_by_role("link", name=gone).click()
    of.get_by_role("button", name="Next").click()
    expect(of.locator("#viewer-name")).to_have_text(a)
    of.get_by_role("button", name="Previous").click()
    of.get_by_role("button", name="Previous").click()
    expect(of.locator("#viewer-name")).to_have_text(c)
    assert not opened.complaints


def test_an_address_with_an_image_id_opens_that_row_and_sections_are_linked(written: Path, opened: Opened) -> None:
    """Somebody sends a link to an image. Closing it takes the id out of the address."""
    of = opened.page
    for link in of.locator("nav a").all():
        target = link.get_attribute("href")
        link.click()
        expect(of).to_have_url(f"{written.as_uri()}{target}")
        assert of.locator(target or "nowhere").count() == 1
    of.goto(f"{written.as_uri()}#image-11")
    expect(viewer(of)).to_be_visible()
    expect(of.locator("#viewer-about")).to_contain_text("image_id 11, 80 x 60, 2 masks")
    of.get_by_role("button", name="Close").click()
    expect(of).to_have_url(written.as_uri())
    of.get_by_role("link", name="gone.png").click()
    expect(of).to_have_url(f"{written.as_uri()}#image-13")
    of.go_back()
    expect(viewer(of)).to_have_count(0)
    assert (
        "No such file" in of.locator("#image-13").inner_text()
        or "gone.png" in of.locator("#image-13 .reason").inner_text()
    )
    assert not opened.complaints


def test_without_a_script_the_pictures_and_their_masks_are_there(written: Path, browsing: Browsing) -> None:
    """What needs the script is not offered."""
    context = browsing.browser.new_context(java_script_enabled=False, reduced_motion="reduce")
    of = context.new_page()
    of.goto(written.as_uri())
    assert of.locator(".masks path:visible").count() == 11
    assert of.locator("form:visible, select:visible, dialog:visible").count() == 0
    of.get_by_role("link", name="c.png").click()
    expect(of).to_have_url(f"{written.as_uri()}#image-12")
    card = of.locator("#image-12").bounding_box()
    assert card
    assert card["width"] > 1000


def test_a_report_of_failures_alone_has_a_page(tmp_path: Path, browsing: Browsing) -> None:
    """No gallery, no figure, and no error in the script."""
    path = tmp_path / "report.html"
    path.write_text(page(empty_report(), Gallery((), read=1, missing="no image has masks")), encoding="utf-8")
    opened = browsing.open(path, width=400)
    assert "No image is shown: no image has masks." in opened.page.locator("#gallery").inner_text()
    assert "Not finished" in opened.page.locator("header").inner_text()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert not opened.complaints
    assert not opened.findings()
