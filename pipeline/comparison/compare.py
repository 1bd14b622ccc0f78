"""Two outputs of the same images, compared: settings, images, masks.

Owns what is counted as what. Holds the masks of two parts of each output, and of the images that will be shown.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count

import numpy as np

from pipeline.comparison.joining import Join, Joined
from pipeline.comparison.outputs import Output
from pipeline.comparison.records import (
    IOU_EDGES,
    PARTNER_IOU,
    ComparedImage,
    Comparison,
    Images,
    Masks,
    Matched,
    Setting,
)
from pipeline.errors import ConfigError
from pipeline.masks.agreement import SIMILAR_IOU, agreement_of, partners, score_differences, total
from pipeline.records import ImageRow, Mask, Status


def compare_outputs(a: Output, b: Output, *, shown: int) -> Comparison:
    """Every image that both have, joined as `Join` says.

    shown   images that are kept for pictures, the most different ones; those without any difference are not
    raises  ConfigError if they have no image in common; StorageError if a store cannot be read
    """
    found, join = Comparison(a, b, list(differing_settings(a, b))), Join(a, b)
    kept: list[tuple[float, int, ComparedImage]] = []
    number = count(0, -1)  # of equally different images the first stay
    for joined in join:
        image = _compare(joined, found)
        if image and image.matched.difference > 0:
            heapq.heappush(kept, (image.matched.difference, next(number), image))
            if len(kept) > shown:
                heapq.heappop(kept)
    found.most_different = [image for _, _, image in sorted(kept, key=lambda each: each[:2], reverse=True)]
    _count_alone(join, found.images)
    if not found.images.both:
        broken = "; ".join((a.broken + b.broken)[:3])
        raise ConfigError(
            f"a={a.out} and b={b.out} have no image in common, neither by its bytes nor by its name"
            + (f" ({broken})" if broken else "; compare two outputs of the same images")
        )
    return found


def differing_settings(a: Output, b: Output) -> Iterator[Setting]:
    """Settings and versions of the two plans that are not the same. A plan that is too old for one does not say it."""
    before, after = (
        output.plan.settings.named(version=output.plan.version)
        | {f"version of {name}": version for name, version in output.plan.versions}
        for output in (a, b)
    )
    for name in [*before, *(name for name in after if name not in before)]:
        values = [str(each[name]) if name in each else "not said" for each in (before, after)]
        if values[0] != values[1]:
            yield Setting(name, *values)


def match(a: ImageRow, b: ImageRow) -> Matched:
    """raises  ValueError if the run lengths of a mask cannot be read or do not fill the image"""
    pairs = tuple(partners(a.masks, b.masks, image_hw=(a.height, a.width)))
    near = [pair for pair in pairs if pair.iou >= PARTNER_IOU]
    in_a, in_b = {pair.reference for pair in near}, {pair.other for pair in near}
    return Matched(
        agreement=agreement_of(pairs, a.masks, b.masks),
        pairs=pairs,
        vanished=tuple(number for number in range(len(a.masks)) if number not in in_a),
        appeared=tuple(number for number in range(len(b.masks)) if number not in in_b),
    )


def _compare(joined: Joined, found: Comparison) -> ComparedImage | None:
    """Count one image; None if its masks are not compared."""
    images, a, b = found.images, joined.row_a, joined.row_b
    if a.sha256 and a.sha256 == b.sha256:
        images.by_bytes += 1
    else:
        images.by_name += 1
        images.other_bytes += bool(a.sha256 and b.sha256)
    if not a.status == b.status == Status.OK:
        images.other_status[str(a.status), str(b.status)] += 1
        images.name(f"{a.status} in A, {b.status} in B", a.file_name)
        return None
    if (a.width, a.height) != (b.width, b.height):
        images.other_size += 1
        images.name("of another size in B", a.file_name)
        return None
    try:
        matched = match(a, b)
    except ValueError as error:
        found.a.broken.append(f"{a.file_name}, in one of the outputs: {error}")
        return None
    images.compared += 1
    images.equal += _facts(a) == _facts(b)
    _add(matched, a.masks, b.masks, found.masks)
    return ComparedImage(joined.a, joined.b, a, b, matched)


def _facts(row: ImageRow) -> list[tuple[str, float, float]]:
    return [(mask.counts, mask.predicted_iou, mask.stability_score) for mask in row.masks]


def _add(matched: Matched, a: tuple[Mask, ...], b: tuple[Mask, ...], masks: Masks) -> None:
    masks.agreement = total([masks.agreement, matched.agreement])
    masks.vanished += len(matched.vanished)
    masks.appeared += len(matched.appeared)
    masks.images_changed += bool(matched.vanished or matched.appeared)
    for pair in matched.pairs:
        if pair.iou < PARTNER_IOU:
            continue
        masks.iou_bins[int(np.searchsorted(IOU_EDGES, pair.iou, side="right")) - 1] += 1
        if pair.iou >= SIMILAR_IOU:
            predicted_iou, stability = score_differences(a[pair.reference], b[pair.other])
            masks.predicted_iou.add(predicted_iou)
            masks.stability.add(stability or 0.0)


def _count_alone(join: Join, images: Images) -> None:
    images.only_a, images.only_b = len(join.left_a), len(join.left_b)
    for kind, left in (("only in A", join.left_a), ("only in B", join.left_b)):
        for alone in left:
            images.name(kind, alone.file_name)
