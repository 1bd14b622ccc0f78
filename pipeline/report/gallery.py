"""The images of a report's gallery: a picture of each, the outlines of its masks, and what is known of every mask.

Owns how many bytes they may take, whatever the output is. Pixels are taken from the source, and are shown only if they
are those that the masks were made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from pipeline.errors import StorageError
from pipeline.look.drawing import Picture, jpeg, scaled, shown_hw
from pipeline.look.html import data_uri
from pipeline.look.pixels import pixels_of
from pipeline.look.sample import Sample, Sampled
from pipeline.plan.plan import OutputSettings
from pipeline.records import Mask
from pipeline.report.outlines import Outlines, outlines_of
from pipeline.storage.store import Store
from pipeline.texts import printable, shortened

MOST_IMAGES = 100
PICTURES, OUTLINES = 6_000_000, 7_000_000
"""Bytes of all pictures as JPEG, and of all outlines; each image has an equal share."""
OF_ONE_PICTURE, OF_ONE_IMAGE = 500_000, 1_200_000
"""However few images there are."""
SMALLER = ((900, 85), (900, 65), (640, 60), (450, 50), (300, 30), (150, 30))
"""Longer side and quality of a picture, the best first. The last one has 10 kB at most, of noise."""
COLOURS = 12
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class ShownMask:
    """colour  number of one of the page's `COLOURS`
    path    the outline
    about   what the script reads: predicted IoU, stability, area, layer, output, box (XYWH) and prompt point (XY), in
            pixels of the image
    """

    colour: int
    path: str
    about: str


@dataclass(frozen=True, slots=True)
class ShownImage:
    """size           width and height of the image
    view           width and height in which the outlines are
    picture        a data URI; empty if the pixels are not there
    reason         why the picture or the outlines are not there
    masks          the largest first
    masks_count    with those that are not shown
    predicted_iou, stability  means over the masks
    depth          masks over a covered pixel
    """

    image_id: int
    name: str
    source: str
    size: tuple[int, int]
    view: tuple[int, int]
    picture: str
    reason: str
    masks: tuple[ShownMask, ...]
    masks_count: int
    predicted_iou: float
    stability: float
    depth: float


def gallery_of(sample: Sample, store: Store) -> list[ShownImage]:
    """The same sample and the same source give the same gallery."""
    images = max(1, len(sample.images))
    picture, outlines = min(OF_ONE_PICTURE, PICTURES // images), min(OF_ONE_IMAGE, OUTLINES // images)
    return [
        _image(sampled, _picture(sampled, store, sample.plan.settings, most=picture), most=outlines)
        for sampled in sample.images
    ]


def _image(sampled: Sampled, picture: tuple[str, str], *, most: int) -> ShownImage:
    row, hw = sampled.row, (sampled.row.height, sampled.row.width)
    uri, reason = picture
    outlined = Outlines((), 0, 0.0)
    try:
        outlined = outlines_of(row.masks, hw, most=most)
    except StorageError as error:
        reason = f"the masks are not shown: {error}"
    height, width = shown_hw(hw)
    return ShownImage(
        image_id=row.image_id,
        name=shortened(row.file_name, LONGEST_NAME),
        source=shortened(row.source, LONGEST_NAME),
        size=(row.width, row.height),
        view=(width, height),
        picture=uri,
        reason=printable(reason)[: 2 * LONGEST_NAME],
        masks=tuple(
            ShownMask(each.number % COLOURS, each.path, _about(row.masks[each.number])) for each in outlined.outlines
        ),
        masks_count=len(row.masks),
        predicted_iou=fmean(mask.predicted_iou for mask in row.masks),
        stability=fmean(mask.stability_score for mask in row.masks),
        depth=outlined.depth,
    )


def _about(mask: Mask) -> str:
    scores = f"{mask.predicted_iou:.4f} {mask.stability_score:.4f} {mask.area} {mask.crop_layer} {mask.multimask_index}"
    return " ".join([scores, *(f"{value:.7g}" for value in (*mask.bbox_xywh, *mask.point_xy))])


def _picture(sampled: Sampled, store: Store, settings: OutputSettings, *, most: int) -> tuple[str, str]:
    """A data URI, or empty and the reason."""
    try:
        rgb_hw3 = scaled(pixels_of(sampled, store, settings))
    except StorageError as error:
        return "", str(error)
    return data_uri(_small(rgb_hw3, most), "image/jpeg"), ""


def _small(rgb_hw3: Picture, most: int) -> bytes:
    """The best of `SMALLER` that has no more bytes than `most`."""
    data = b""
    for side, quality in SMALLER:
        data = jpeg(scaled(rgb_hw3, longer_side=side), quality=quality)
        if len(data) <= most:
            break
    return data
