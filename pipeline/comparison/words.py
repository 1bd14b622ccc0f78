"""A comparison in words: the lines for a terminal, and the sentences that the page has too.

Owns how numbers are spelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from pipeline.comparison.outputs import Output
from pipeline.comparison.records import (
    IOU_EDGES,
    PARTNER_IOU,
    ComparedImage,
    Comparison,
    Images,
    Masks,
    Matched,
    Moves,
)
from pipeline.masks.agreement import SAME_IOU, SIMILAR_IOU
from pipeline.texts import counted

SHOWN_SETTINGS, SHOWN_IMAGES = 12, 3
WIDTH = 12
"""Of the first column."""


def summary(found: Comparison) -> list[str]:
    """For a terminal, most important first; not yet made printable."""
    lines = [f"Maskmill: {verdict(found)}"]
    rows = [("A", f"{found.a.out} ({standing(found.a)})"), ("B", f"{found.b.out} ({standing(found.b)})")]
    rows += _settings(found)
    rows += [("images", images_said(found.images))]
    rows += [("", sentence) for sentence in image_sentences(found.images)]
    rows += [("masks", said) for said in _masks(found.masks)]
    rows += [("", said) for said in _scores(found.masks)]
    rows += [("most apart", image_said(image)) for image in found.most_different[:SHOWN_IMAGES]]
    before = ""
    for label, said in rows:
        lines.append(f"  {label if label != before else '':<{WIDTH}}{said}")
        before = label or before
    return lines


def verdict(found: Comparison) -> str:
    """One sentence."""
    images, masks = found.images, found.masks
    if not images.compared:
        return "no image has masks in both outputs that could be compared"
    if images.equal == images.compared:
        both = " that both have" if images.only_a or images.only_b else ""
        return (
            f"100 % the same: {counted(masks.agreement.reference, 'mask')} of {counted(images.compared, 'image')}{both}"
        )
    return (
        f"{share(masks.agreement.similar, masks.agreement.reference)} of A's masks are in B "
        f"(IoU >= {SIMILAR_IOU}); {counted(masks.vanished, 'mask')} vanished, {masks.appeared:,} appeared"
    )


def standing(output: Output) -> str:
    """How far it is, and what made it."""
    settings = output.plan.settings
    there = f"{len(output.chunks):,} of {counted(output.plan.chunk_count, 'part')}"
    return f"{counted(output.plan.image_count, 'image')}, {there}; {settings.model_name}, {settings.precision}"


def images_said(images: Images) -> str:
    return (
        f"{images.both:,} in both ({images.by_bytes:,} by their bytes, {images.by_name:,} by name), "
        f"{images.only_a:,} only in A, {images.only_b:,} only in B"
    )


def image_sentences(images: Images) -> Iterator[str]:
    """What is odd about the images; nothing if nothing is."""
    if images.other_bytes:
        yield f"{counted(images.other_bytes, 'image')} of the same name with other bytes in B"
    kinds = {"only in A": images.only_a, "only in B": images.only_b, "of another size in B": images.other_size}
    kinds |= {f"{a} in A, {b} in B": count for (a, b), count in images.other_status.most_common()}
    for kind, count in kinds.items():
        if count:
            names = images.named.get(kind, [])
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            yield f"{kind}: {', '.join(names)}{more}"


def image_said(image: ComparedImage) -> str:
    return f"{image.row_a.file_name}: {matched_said(image.matched)}"


def matched_said(matched: Matched) -> str:
    agreement = matched.agreement
    mean = f"; mean IoU {agreement.mean_iou:.4f}" if agreement.reference else ""
    return (
        f"{counted(agreement.reference, 'mask')} in A, {agreement.count:,} in B; {agreement.identical:,} identical, "
        f"{len(matched.vanished):,} vanished, {len(matched.appeared):,} appeared{mean}"
    )


def mask_rows(masks: Masks) -> list[tuple[str, int, int]]:
    """(what, how many, of how many)."""
    agreement, identical = masks.agreement, masks.agreement.identical
    return [
        ("identical", identical, agreement.reference),
        (f"IoU >= {SAME_IOU}", agreement.matched, agreement.reference),
        (f"IoU >= {SIMILAR_IOU}", agreement.similar, agreement.reference),
        (f"changed, IoU {PARTNER_IOU} to {SIMILAR_IOU}", changed(masks), agreement.reference),
        (f"vanished, no partner of IoU >= {PARTNER_IOU}", masks.vanished, agreement.reference),
        ("appeared", masks.appeared, agreement.count),
    ]


def changed(masks: Masks) -> int:
    return masks.agreement.reference - masks.vanished - masks.agreement.similar


def iou_rows(masks: Masks) -> list[tuple[str, int]]:
    """(IoU of partners, how many), the identical ones first."""
    labels = [f"{low} to {high}" for low, high in pairwise(IOU_EDGES)]
    return list(zip(["identical", *labels[::-1]], masks.iou_bins[::-1], strict=True))


def score_rows(masks: Masks) -> list[tuple[str, Moves]]:
    return [("predicted IoU", masks.predicted_iou), ("stability", masks.stability)]


def share(count: int, of: int) -> str:
    """100.0 % only if it is all, 0.0 % only if it is none."""
    if not of:
        return "none"
    percent = 100 * count / of
    if count < of:
        percent = min(percent, 99.9)
    if count:
        percent = max(percent, 0.1)
    return f"{percent:.1f} %"


def small(value: float) -> str:
    """A difference of scores."""
    return f"{value:.2g}" if value else "0"


def _settings(found: Comparison) -> Iterator[tuple[str, str]]:
    if not found.settings:
        yield "settings", "the same, and the same versions"
    for setting in found.settings[:SHOWN_SETTINGS]:
        yield "settings", f"{setting.name}: {setting.a} in A, {setting.b} in B"
    if len(found.settings) > SHOWN_SETTINGS:
        yield "settings", f"and {len(found.settings) - SHOWN_SETTINGS} more, which the page has"


def _masks(masks: Masks) -> Iterator[str]:
    agreement = masks.agreement
    yield f"{agreement.reference:,} in A, {agreement.count:,} in B"
    for what, count, of in mask_rows(masks):
        yield f"{count:>9,} {what} ({share(count, of)})"
    if agreement.reference:
        yield f"mean IoU {agreement.mean_iou:.4f} over A's masks, least {agreement.least_iou:.4f}"


def _scores(masks: Masks) -> Iterator[str]:
    for name, moves in score_rows(masks):
        if moves.pairs:
            median, most = small(moves.median), small(moves.most)
            yield f"{name} moved by {median} (median), {most} (most), {moves.mean:+.1e} (mean, signed)"
