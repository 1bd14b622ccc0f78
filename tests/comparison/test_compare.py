"""What is counted: which images are one, which masks are partners, what vanished, appeared and moved."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peer_masks import PeerMask
from pipeline.comparison.compare import differing_settings, match
from pipeline.comparison.joining import Join
from pipeline.comparison.outputs import open_output
from pipeline.comparison.records import Comparison, Moves
from pipeline.comparison.words import iou_rows, mask_rows, matched_said, share, summary, verdict
from pipeline.masks.agreement import agreement, total
from pipeline.masks.rle import pack_pixels
from pipeline.records import ImageRow, Mask, Status
from pipeline.settings import Format, StoreSettings
from pipeline.storage.store import Store
from tests.comparison.conftest import OTHER, Make
from tests.fakes_run import ReadsNoted, drawn_image, write_folder
from tests.small_runs import rows_at

Compared = Callable[..., Comparison]


def test_an_output_beside_itself_is_the_same_to_100_percent(make: Make, compared: Compared) -> None:
    """The first thing that anybody tries."""
    a = make("a")
    found = compared(a, a)
    masks = sum(len(row.masks) for row in rows_at(a.out))
    assert masks > 20
    assert verdict(found) == f"100 % the same: {masks} masks of 7 images"
    assert found.settings == []
    assert found.most_different == []
    assert found.masks.agreement.agrees
    assert [count for _, count, _ in mask_rows(found.masks)] == [masks, masks, masks, 0, 0, 0]
    assert iou_rows(found.masks)[0] == ("identical", masks)
    assert (found.images.equal, found.images.other_status) == (7, {("unreadable", "unreadable"): 1})


def peers(row: ImageRow) -> list[PeerMask]:
    return [PeerMask(mask.counts, mask.predicted_iou, mask.stability_score) for mask in row.masks]


def test_the_figures_are_those_of_the_benchmarks_on_the_same_images(make: Make, compared: Compared) -> None:
    """The tables in docs/ say agreement; what a user is told about two outputs must be the same number."""
    a, b = make("a"), make("b", OTHER)
    found = compared(a, b)
    rows_b = {row.file_name: row for row in rows_at(b.out)}
    each = [
        agreement(peers(row), peers(rows_b[row.file_name]), image_hw=(row.height, row.width))
        for row in rows_at(a.out)
        if row.status is Status.OK
    ]
    expected = asdict(total(each))
    assert asdict(found.masks.agreement) == pytest.approx(expected)
    assert 0 < expected["similar"] < expected["reference"] != expected["count"]
    moved = max(found.masks.predicted_iou.most, found.masks.stability.most)
    assert moved == pytest.approx(expected["score_difference"])
    partners = sum(count for _, count in iou_rows(found.masks))
    assert found.masks.vanished == expected["reference"] - partners > 0
    assert found.masks.appeared == expected["count"] - partners > 0


def test_the_most_different_images_come_first_and_no_more_than_asked(make: Make, compared: Compared) -> None:
    """A page of a million images shows the few that matter."""
    a, b = make("a"), make("b", OTHER)
    every = compared(a, b, shown=50).most_different
    differences = [image.matched.difference for image in every]
    assert differences == sorted(differences, reverse=True)
    assert len(every) == 7
    few = compared(a, b, shown=2).most_different
    assert [image.row_a.file_name for image in few] == [image.row_a.file_name for image in every[:2]]
    assert compared(a, b, shown=0).most_different == []


@pytest.mark.parametrize("images_per_chunk", [1, 2, 7])
def test_the_cut_into_chunks_and_the_format_make_no_difference_and_each_part_is_read_once(
    make: Make, compared: Compared, images_per_chunk: int
) -> None:
    """Two runs of one source rarely have the same parts; and parts are what costs time."""
    a = make("a")
    expected = compared(a, make("b", OTHER))
    noted = ReadsNoted(StoreSettings())
    other = make("c", OTHER, images_per_chunk=images_per_chunk, format=Format.COCO_RLE)
    found = compared(a, other, through=noted)
    assert asdict(found.masks.agreement) == pytest.approx(asdict(expected.masks.agreement))
    assert found.images == expected.images
    assert len(noted.parts_read) == len(set(noted.parts_read)) == 3 + math.ceil(8 / images_per_chunk)


def test_an_unfinished_run_is_compared_as_far_as_both_are(make: Make, compared: Compared) -> None:
    """Whoever tries a setting wants to know before the run is done."""
    a = make("a")
    found = compared(a, make("b", chunks=1))
    assert (found.images.both, found.images.only_a, found.images.only_b) == (3, 5, 0)
    assert len(found.images.named["only in A"]) == 5
    text = "\n".join(summary(found))
    assert "masks of 2 images that both have" in text
    assert "1 of 3 parts" in text
    assert "0 only in B" in text


def test_images_are_joined_by_their_bytes_whatever_they_are_called_and_else_by_name(
    make: Make, compared: Compared, tmp_path: Path
) -> None:
    """A copy with other names is the same image; one that was encoded anew has its name; one may be in both twice."""
    first = {
        "a.png": drawn_image(1),
        "twice.png": drawn_image(1),
        "sa_7.png": drawn_image(2),
        "only.png": drawn_image(5),
    }
    second = {"z.png": drawn_image(1), "y.png": drawn_image(1), "sa_7.jpg": drawn_image(2) + b"\n", "gone.png": b""}
    a = make("a", source=write_folder(tmp_path / "one", first))
    b = make("b", source=write_folder(tmp_path / "two", second))
    images = compared(a, b).images
    assert (images.by_bytes, images.by_name, images.other_bytes) == (2, 1, 1)
    assert (images.named["only in A"], images.named["only in B"]) == (["only.png"], ["gone.png"])
    assert images.equal == 3


def test_failed_images_and_other_sizes_are_named_and_their_masks_are_not_compared(
    make: Make, compared: Compared, pictures: Path, tmp_path: Path
) -> None:
    """An image that failed in one run has lost all its masks, but not by anything that the settings did."""
    a = make("a")
    names = {path.name: path.read_bytes() for path in pictures.iterdir()}
    names |= {"im0.png": b"no image any more", "im1.png": drawn_image(77)}
    b = make("b", source=write_folder(tmp_path / "changed", names))
    images = compared(a, b).images
    assert images.other_status == {("ok", "unreadable"): 1, ("unreadable", "unreadable"): 1}
    assert images.named["ok in A, unreadable in B"] == ["im0.png"]
    assert (images.other_size, images.named["of another size in B"]) == (1, ["im1.png"])
    assert images.compared == 5


def test_settings_and_versions_that_differ_are_named(make: Make, compared: Compared, store: Store) -> None:
    """The first question about two outputs is what was done differently."""
    a, b = make("a"), make("b", OTHER, images_per_chunk=2)
    found = compared(a, b)
    assert {(each.name, each.a, each.b) for each in found.settings} == {
        ("recipe.points_per_side", "4", "5"),
        ("recipe.box_nms_thresh", "0.7", "0.6"),
        ("run.images_per_chunk", "3", "2"),
    }
    sides = [open_output(each.out, store) for each in (a, b)]
    versions = tuple((name, "0.1" if name == "torch" else version) for name, version in sides[1].plan.versions)
    older = replace(sides[1].plan, versions=versions, settings=sides[0].plan.settings)
    sides[1].plan = older
    [only] = differing_settings(*sides)
    assert (only.name, only.b) == ("version of torch", "0.1")


def test_a_part_that_cannot_be_used_is_said_and_costs_its_images_alone(make: Make, compared: Compared) -> None:
    """Half a comparison that passes for a whole one would be worse than none."""
    a, b = make("a"), make("b")
    part = min((Path(b.out) / "data").iterdir())
    part.write_bytes(b"")
    found = compared(a, b)
    assert found.images.only_a == 3
    assert len(found.b.broken) == 1
    assert part.name in found.b.broken[0]


def square(x: int, side: int, score: float) -> Mask:
    mask_HW = np.zeros((40, 40), np.bool_)
    mask_HW[2 : 2 + side, x : x + side] = True
    box = (float(x), 2.0, side - 1.0, side - 1.0)
    return Mask(pack_pixels(mask_HW), box, side**2, score, score, (0.0, 0.0), (0.0, 0.0, 40.0, 40.0), 0, 0)


def row(*masks: Mask) -> ImageRow:
    return ImageRow(1, "a.png", "a.png", Status.OK, width=40, height=40, masks=masks)


def test_masks_below_half_an_iou_are_no_partners_but_one_vanished_and_one_appeared() -> None:
    """10 x 10 beside 10 x 10 moved by 4: 60 of 140 pixels; moved by 3: 70 of 130."""
    near = match(row(square(0, 10, 0.9)), row(square(3, 10, 0.9)))
    assert (near.vanished, near.appeared) == ((), ())
    assert near.difference == pytest.approx(1 - 70 / 130)
    far = match(row(square(0, 10, 0.9)), row(square(4, 10, 0.9)))
    assert (far.vanished, far.appeared) == ((0,), (0,))
    assert far.agreement.mean_iou == pytest.approx(60 / 140)
    assert match(row(), row()).difference == 0
    gone = match(row(square(0, 10, 0.9)), row())
    assert gone.difference == 1
    assert matched_said(gone) == "1 mask in A, 0 in B; 0 identical, 1 vanished, 0 appeared; mean IoU 0.0000"
    new = match(row(), row(square(0, 10, 0.9)))
    assert matched_said(new) == "0 masks in A, 1 in B; 0 identical, 0 vanished, 1 appeared", "a mean of nothing"


def test_the_median_of_moved_scores_is_right_to_a_percent() -> None:
    """It comes from bins, because an output may have a thousand million pairs."""
    rng = np.random.default_rng(0)
    values = [float(value) for value in 10 ** rng.uniform(-6, -1, 999) * rng.choice([-1, 1], 999)]
    moves = Moves()
    for value in values:
        moves.add(value)
    assert moves.median == pytest.approx(statistics.median(map(abs, values)), rel=0.012)
    assert moves.most == max(map(abs, values))
    assert moves.mean == pytest.approx(statistics.mean(values))
    still = Moves()
    for value in (0.0, 0.0, 0.5):
        still.add(value)
    assert (still.median, still.most) == (0.0, 0.5)
    assert (Moves().median, Moves().mean) == (0.0, 0.0)


def test_a_share_is_whole_only_if_it_is() -> None:
    """99.97 % must not read as all of them."""
    assert [share(*each) for each in ((9999, 10000), (1, 10000), (0, 5), (5, 5), (0, 0))] == [
        "99.9 %",
        "0.1 %",
        "0.0 %",
        "100.0 %",
        "none",
    ]


def test_what_waits_for_a_partner_is_as_much_as_the_plans_are_apart(make: Make, store: Store) -> None:
    """Memory must not grow with outputs that are in the same order: at no time more than a part is unpaired."""
    a, b = make("a", images_per_chunk=2), make("b", OTHER)
    join = Join(open_output(a.out, store), open_output(b.out, store))
    places = [(joined.a, joined.b) for joined in join]
    assert len(places) == 8
    assert [a.part * 2 + a.row for a, _ in places] == [b.part * 3 + b.row for _, b in places]
    assert (join.left_a, join.left_b) == ([], [])
