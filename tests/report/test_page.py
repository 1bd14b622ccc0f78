"""The page and its gallery: what they say, that names stay names, and how large they get."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.masks.rle import Rle
from pipeline.report import gallery as limits
from pipeline.report.gallery import ShownImage, ShownMask, gallery_of
from pipeline.report.page import LONGEST, MOST_BROKEN, MOST_COLUMNS, MOST_FAILURES, MOST_GROUPS, Gallery, page
from pipeline.report.records import Failure, Group, Grouping, Scope
from pipeline.storage.store import Store
from tests.fakes_run import as_png
from tests.look.test_page import Tags
from tests.report.reports import HOSTILE, bare_report, full_report, grouping
from tests.report.samples import made_sample, masks_by_name

NOTHING = Gallery((), 0, "nobody asked")


@pytest.fixture
def shown(tmp_path: Path, store: Store) -> list[ShownImage]:
    return gallery_of(made_sample(tmp_path, store), store)


def words(of: str) -> str:
    """What a reader sees, with a blank between two elements."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", of, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_a_gallery_has_each_image_with_its_masks_and_what_is_known_of_them(shown: list[ShownImage]) -> None:
    """The largest mask first, so that smaller ones lie on top."""
    assert [image.name for image in shown] == list(masks_by_name())
    first = shown[0]
    assert (first.image_id, first.size, first.view, first.masks_count) == (10, (80, 60), (80, 60), 3)
    assert first.masks[0] == ShownMask(1, "M0 0l0 39 39 0 0 -39z", "0.9000 0.9500 1600 0 1 0 0 39 39 20 20")
    assert [mask.about.split()[2] for mask in first.masks] == ["1600", "100", "100"]
    assert first.predicted_iou == pytest.approx(0.7333, abs=1e-4)
    assert first.depth == pytest.approx(1800 / 1600)
    picture = base64.b64decode(first.picture.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(picture)).size == (80, 60)


def test_an_image_that_is_gone_keeps_its_masks_and_says_why(shown: list[ShownImage]) -> None:
    """Masks over other pixels than theirs would be a lie; on a grey frame they are not."""
    gone = shown[-1]
    assert gone.picture == ""
    assert "gone.png" in gone.reason
    assert len(gone.masks) == 5
    text = page(bare_report(), Gallery(shown, 2))
    assert text.count("<image ") == 3
    assert text.count('class="gone"') == 1


def test_masks_that_cannot_be_read_cost_their_own_image_alone(tmp_path: Path, store: Store) -> None:
    """A damaged mask in a tar is found only when it is drawn."""
    sample = made_sample(tmp_path, store)
    row = sample.images[0].row
    sample.images[0] = replace(sample.images[0], row=replace(row, masks=(replace(row.masks[0], counts="0"),)))
    shown = gallery_of(sample, store)
    assert shown[0].masks == ()
    assert shown[0].picture
    assert "the run lengths of a mask do not fill its image" in shown[0].reason
    assert all(len(image.masks) == image.masks_count for image in shown[1:])


def test_scores_and_boxes_that_are_no_numbers_cost_no_page(tmp_path: Path, store: Store) -> None:
    """A damaged part may hold anything that a float can."""
    sample = made_sample(tmp_path, store)
    nan, inf = float("nan"), float("inf")
    mask = replace(masks_by_name()["a.png"][0], counts=_none_of(80 * 60), predicted_iou=nan, stability_score=inf)
    masks = tuple(replace(mask, bbox_xywh=box) for box in ((nan,) * 4, (inf,) * 4, (-1e300, 0.0, 1e300, -5.0)))
    row = replace(sample.images[0].row, masks=masks)
    sample.images[:] = [replace(sample.images[0], row=row)]
    shown = gallery_of(sample, store)
    assert [len(each.masks) for each in shown] == [3]
    assert 'class="card"' in page(bare_report(), Gallery(shown, 1))


def _none_of(pixels: int) -> str:
    return Rle((pixels, 1), np.array([pixels], np.int64)).packed()


def test_pictures_and_outlines_fit_into_their_share(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is what a JPEG is worst at. The picture gets coarser, and the smallest masks are left out and counted."""
    sample = made_sample(tmp_path, store)
    noise_HW3 = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    data = as_png(Image.fromarray(noise_HW3))
    Path(sample.images[0].row.source).write_bytes(data)
    one_run = replace(sample.images[0].row.masks[0], counts=_all_of(900), bbox_xywh=(0.0, 0.0, 899.0, 899.0))
    row = replace(sample.images[0].row, width=900, height=900, sha256=hashlib.sha256(data).hexdigest())
    sample.images[:] = [replace(sample.images[0], row=replace(row, masks=(one_run,) * 40))]
    full = gallery_of(sample, store)[0]
    assert len(full.masks) == 40
    monkeypatch.setattr(limits, "PICTURES", 50_000)
    monkeypatch.setattr(limits, "OUTLINES", 2_000)
    small = gallery_of(sample, store)[0]
    assert len(small.picture) < 50_000 * 4 / 3 + 30 < len(full.picture)
    assert 0 < len(small.masks) < 40
    assert f"The {len(small.masks)} largest of its masks are drawn" in words(page(bare_report(), Gallery([small], 1)))


def _all_of(side: int) -> str:
    return Rle((side, side), np.array([0, side * side], np.int64)).packed()


def test_the_largest_page_that_can_be_is_below_20_mb() -> None:
    """Every picture and every outline has its whole share, and every list is endless, of endless names.

    A chart of so many groups takes half a second of a core, so that the second one stands for all that follow.
    """
    share = limits.PICTURES // limits.MOST_IMAGES
    picture = "data:image/jpeg;base64," + "A" * (4 * max(share, 10_000) // 3)
    outline = "M0 0" + "l1 1" * (limits.OUTLINES // limits.MOST_IMAGES // 4)
    masks = (ShownMask(11, outline, "0.9000 0.9500 1600 0 1 0 0 39 39 20 20"),)
    name = HOSTILE * 10
    image = ShownImage(
        0, name[: limits.LONGEST_NAME], name, (900, 900), (900, 900), picture, name, masks, 9999, 0.9, 0.9, 3.0
    )
    images = [replace(image, image_id=number) for number in range(limits.MOST_IMAGES)]
    report = bare_report(
        out=name,
        failures=tuple(Failure("crashed", name * 9, 1, (name * 9,) * 3) for _ in range(2_000)),
        broken=(name * 9,) * 5_000,
        provenance={f"{name}{number}": name * 9 for number in range(100)},
        layers=dict.fromkeys(range(-128, 128), 1),
        outputs=dict.fromkeys(range(-128, 128), 1),
    )
    small = grouping(name * 9, groups=1)
    full = replace(small, groups=_groups(name * 9, 2_000))
    sizes: list[int] = []
    for charts in (1, 2):
        groupings = (*(full,) * charts, *(small,) * (60 - charts))
        text = page(replace(report, groupings=groupings), Gallery(images, 4))
        assert text.count("Images that are ok, by their value in this column.") == MOST_COLUMNS
        sizes.append(len(text.encode()))
    largest = sizes[1] + (MOST_COLUMNS - 2) * (sizes[1] - sizes[0])
    assert 10_000_000 < largest < 20_000_000


def _groups(name: str, count: int) -> tuple[Group, ...]:
    return tuple(Group(f"{number}{name}", 9, 90, 10.0, (9.0, 11.0)) for number in range(count))


def test_what_a_list_leaves_out_is_counted() -> None:
    """A page that ends in the middle of a list must say so."""
    report = bare_report(
        failures=tuple(Failure("crashed", f"reason {number}", 2, ()) for number in range(MOST_FAILURES + 3)),
        groupings=(grouping(groups=MOST_GROUPS + 7),),
        broken=tuple(f"part {number}" for number in range(MOST_BROKEN + 5)),
    )
    text = words(page(report, NOTHING))
    assert "86 images of the sampled parts failed, by reason. 3 rarer reasons are left out." in text
    assert "7 smaller groups are left out." in text
    assert f"{MOST_BROKEN + 5} parts could not be read" in text
    assert "and 5 more" in text
    assert f"reason {MOST_FAILURES - 1}" in text
    assert f"reason {MOST_FAILURES} " not in text


def test_names_are_text_whatever_is_in_them(shown: list[ShownImage]) -> None:
    """A name comes from whoever made the file, the table or the tar."""
    turned = "a\u202egpj.\ud800" + "x" * 2 * LONGEST
    report = bare_report(
        out=HOSTILE,
        failures=(Failure(HOSTILE, HOSTILE, 1, (HOSTILE, turned)),),
        provenance={HOSTILE: HOSTILE},
        groupings=(replace(grouping(HOSTILE), groups=_groups(HOSTILE, 1)),),
        broken=(HOSTILE,),
        statuses={HOSTILE: 1},
    )
    text = page(report, Gallery(shown, 2))
    assert HOSTILE not in text
    assert r"a\u202egpj.\ud800" in text
    assert "x" * LONGEST not in text
    assert words(text).count(HOSTILE) >= 9
    tags = Tags(text).tags
    assert not any(name.startswith("on") or name == "style" for _, attributes in tags for name in attributes)
    assert {tag for tag, _ in tags if tag in ("script", "iframe", "link", "object", "embed", "base")} == {"script"}


def test_the_policy_allows_the_pages_own_style_and_script_alone(shown: list[ShownImage]) -> None:
    """The hashes are of what stands in the page."""
    text = page(bare_report(), Gallery(shown, 2))
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    [policy] = [meta["content"] for meta in Tags(text).all("meta") if "http-equiv" in meta]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert (policy or "").split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{hashes[0]}'",
        f"script-src 'sha256-{hashes[1]}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert "https://" not in text
    assert set(re.findall("http://[^\"' <]*", text)) == {"http://www.w3.org/2000/svg"}


def test_the_page_says_what_was_counted_and_what_was_sampled() -> None:
    """A sample of an unfinished run must not pass for the whole."""
    scope = Scope(2000, 20, 12, 11, 4, 390, 25_000, 7)
    text = words(page(bare_report(scope=scope, broken=("a part is cut",)), NOTHING))
    assert "Not finished 12 of 20 parts are committed; 2,000 images were planned." in text
    assert "The totals count 11 of the committed parts." in text
    assert "The figures are of 4 of 12 committed parts, sampled with seed 7: 390 images with 25,000 masks." in text
    whole = words(page(bare_report(), NOTHING))
    assert "Finished 2 parts of 8 planned images. The totals count every committed part." in whole
    assert "The figures are of every committed part: 7 images with 502 masks." in whole
    assert "Parts that cannot be used" not in whole


def test_a_group_of_a_single_image_has_no_interval() -> None:
    """Two NaN say that one image knows nothing of the spread."""
    nan = float("nan")
    groups = (Group("one", 1, 30, 30.0, (nan, nan)), Group("many", 9, 90, 10.0, (5.0, 15.0)))
    text = page(bare_report(groupings=(Grouping("country", groups, 0, 0, 0.95),)), NOTHING)
    said = words(text)
    assert said.index("many 9 90 10.0 5.0 to 15.0") < said.index("one 1 30 30.0 unknown")
    assert "nan" not in said.split()


def test_our_numbers_stand_beside_those_of_sa_1b() -> None:
    """With the place where they were published."""
    text = words(page(bare_report(groupings=(grouping(),)), NOTHING))
    assert "masks per image 71.7 100 the paper, section 5" in text
    assert "25.0 to 27.0 94 to 108" in text


def test_the_same_report_is_the_same_page(shown: list[ShownImage]) -> None:
    """So that two pages can be compared."""
    report = bare_report(funnel=full_report().funnel, groupings=(grouping(),))
    assert page(report, Gallery(shown, 2)) == page(report, Gallery(shown, 2))
