"""The page: one HTML file that needs nothing but itself, with each sampled image beside its masks.

Owns what a reader sees. Pixels are taken from the source, and are shown only if they are those that the masks were made
of.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import StorageError
from pipeline.look.drawing import drawn_over, grey, scaled
from pipeline.look.html import jpeg_uri, render
from pipeline.look.pixels import pixels_of
from pipeline.look.sample import Sample, Sampled
from pipeline.plan.plan import OutputSettings
from pipeline.storage.store import Store
from pipeline.texts import counted, printable


@dataclass(frozen=True)
class Figure:
    """One image on the page. Pictures are data URIs.

    image   empty if the pixels are not there; `reason` says why
    masks   empty if they cannot be drawn; `reason` says why
    """

    name: str
    size: str
    masks_said: str
    image: str
    masks: str
    reason: str


def page(sample: Sample, store: Store) -> str:
    """The same sample and the same source give the same page.

    A source that cannot be read costs the pictures their background, and the page says so.
    """
    return render(
        "pipeline.look",
        "look",
        out=printable(sample.out),
        figures=[_figure(sampled, store, sample.plan.settings) for sampled in sample.images],
        sample=sample,
        images_of_run=counted(sample.plan.image_count, "image"),
        parts_of_run=counted(sample.committed, "part"),
        model=printable(sample.plan.settings.model_name),
        broken=[printable(sentence) for sentence in sample.broken],
    )


def _figure(sampled: Sampled, store: Store, settings: OutputSettings) -> Figure:
    row, masks, reason = sampled.row, "", ""
    hw = row.height, row.width
    try:
        image = scaled(pixels_of(sampled, store, settings))
    except StorageError as error:
        image, reason = None, str(error)
    try:
        masks = jpeg_uri(drawn_over(grey(hw) if image is None else image, row.masks, hw))
    except StorageError as error:
        reason = str(error)
    return Figure(
        name=printable(row.file_name),
        size=f"{row.width} x {row.height}",
        masks_said=counted(len(row.masks), "mask"),
        image="" if image is None else jpeg_uri(image),
        masks=masks,
        reason=printable(reason),
    )
