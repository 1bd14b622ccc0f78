"""The page of a comparison: one HTML file that needs nothing but itself.

Owns what a reader sees. The words and numbers are those of the terminal.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.comparison import words
from pipeline.comparison.outputs import Output
from pipeline.comparison.pictures import pictures
from pipeline.comparison.records import PARTNER_IOU, ComparedImage, Comparison, Masks
from pipeline.look.html import jpeg_uri, render
from pipeline.look.plots import WIDE, Plot, lying, plot
from pipeline.masks.agreement import SIMILAR_IOU
from pipeline.texts import printable


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table."""

    label: str
    count: str
    share: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One image on the page. Pictures are data URIs, empty if there are none; `reason` says why."""

    name: str
    said: str
    alt_a: str
    alt_b: str
    a: str
    b: str
    reason: str


@dataclass(frozen=True, slots=True)
class Side:
    letter: str
    out: str
    standing: str


def page(found: Comparison) -> str:
    """The same outputs and the same sources give the same page. What cannot be read costs pictures their background."""
    masks = found.masks
    return render(
        "pipeline.comparison",
        "compare",
        verdict=words.verdict(found),
        sides=[_side("A", found.a), _side("B", found.b)],
        settings=[(printable(each.name), printable(each.a), printable(each.b)) for each in found.settings],
        images_said=words.images_said(found.images),
        images_equal=f"{found.images.equal:,} of {found.images.compared:,}",
        image_sentences=[printable(sentence) for sentence in words.image_sentences(found.images)],
        masks=masks.agreement,
        mask_rows=_mask_rows(masks),
        iou_rows=_iou_rows(masks),
        iou_chart=_iou_chart(masks),
        score_rows=[
            (name, words.small(moves.median), words.small(moves.most), f"{moves.mean:+.1e}", f"{moves.pairs:,}")
            for name, moves in words.score_rows(masks)
        ],
        bounds=(PARTNER_IOU, SIMILAR_IOU),
        figures=[_figure(image, found) for image in found.most_different],
        broken=[printable(sentence) for sentence in found.a.broken + found.b.broken],
    )


def _side(letter: str, output: Output) -> Side:
    return Side(letter, printable(output.out), printable(words.standing(output)))


def _mask_rows(masks: Masks) -> list[Row]:
    return [Row(label, f"{count:,} of {of:,}", words.share(count, of)) for label, count, of in words.mask_rows(masks)]


def _iou_rows(masks: Masks) -> list[Row]:
    rows = words.iou_rows(masks)
    pairs = sum(count for _, count in rows)
    return [Row(label, f"{count:,}", words.share(count, pairs)) for label, count in rows]


def _iou_chart(masks: Masks) -> Plot:
    labels, counts = zip(*words.iou_rows(masks), strict=True)
    return plot(lying(labels, counts, [0] * len(counts), [f"{count:,}" for count in counts]), WIDE)


def _figure(image: ComparedImage, found: Comparison) -> Figure:
    shown = pictures(image, found.a, found.b)
    name, matched = printable(image.row_a.file_name), image.matched
    return Figure(
        name=name,
        said=words.matched_said(matched),
        alt_a=f"{name} with A's masks: {len(matched.vanished)} vanish in B",
        alt_b=f"{name} with B's masks: {len(matched.appeared)} are new",
        a="" if shown.a is None else jpeg_uri(shown.a),
        b="" if shown.b is None else jpeg_uri(shown.b),
        reason=printable(shown.reason),
    )
