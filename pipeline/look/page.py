"""The page: one HTML file that needs nothing but itself, with each sampled image beside its masks.

Owns what a reader sees and what a browser may do: nothing is loaded and no script runs. The template escapes every
name. Pixels are taken from the source, and are shown only if they are those that the masks were made of.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.errors import InputError, StorageError
from pipeline.look.drawing import Picture, drawn_over, grey, jpeg, scaled
from pipeline.look.sample import Sample, Sampled
from pipeline.plan.plan import OutputSettings
from pipeline.records import ImageRow
from pipeline.storage.images import decode_image
from pipeline.storage.store import Store
from pipeline.texts import printable


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
    environment = Environment(
        loader=PackageLoader("pipeline.look"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = files("pipeline.look").joinpath("templates", "look.css").read_text(encoding="utf-8")
    return environment.get_template("look.html").render(
        policy=_policy(style),
        style=style,
        out=printable(sample.out),
        figures=[_figure(sampled, store, sample.plan.settings) for sampled in sample.images],
        sample=sample,
        model=printable(sample.plan.settings.model_name),
        broken=[printable(sentence) for sentence in sample.broken],
    )


def _policy(style: str) -> str:
    """A Content-Security-Policy that allows this style and pictures inside the page, and nothing else."""
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{sha256}'; base-uri 'none'; form-action 'none'"


def _figure(sampled: Sampled, store: Store, settings: OutputSettings) -> Figure:
    row, masks, reason = sampled.row, "", ""
    hw = row.height, row.width
    try:
        image = scaled(_pixels(sampled, store, settings))
    except StorageError as error:
        image, reason = None, str(error)
    try:
        masks = _data_uri(drawn_over(grey(hw) if image is None else image, row.masks, hw))
    except StorageError as error:
        reason = str(error)
    return Figure(
        name=printable(row.file_name),
        size=f"{row.width} x {row.height}",
        masks_said="1 mask" if len(row.masks) == 1 else f"{len(row.masks):,} masks",
        image="" if image is None else _data_uri(image),
        masks=masks,
        reason=printable(reason),
    )


def _pixels(sampled: Sampled, store: Store, settings: OutputSettings) -> Picture:
    """raises  StorageError if these are not there, or not the ones that the masks were made of"""
    row, place = sampled.row, sampled.place
    if place is None:
        raise StorageError(sampled.why or "there are no bytes of it")
    data = store.read(place.uri, offset=place.offset, length=place.length or None, limit=settings.max_bytes)
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise StorageError(f"{place.uri} has changed since the masks were made")
    return _decoded(data, row, max_pixels=settings.max_pixels)


def _decoded(data: bytes, row: ImageRow, *, max_pixels: int) -> Picture:
    try:
        rgb_HW3 = decode_image(data, max_pixels=max_pixels).rgb_HW3
    except InputError as error:
        raise StorageError(f"{row.source} cannot be decoded here: {error.reason}") from error
    if rgb_HW3.shape[:2] != (row.height, row.width):
        raise StorageError(f"{row.source} is decoded to {rgb_HW3.shape[1]} x {rgb_HW3.shape[0]} here")
    return rgb_HW3


def _data_uri(rgb_hw3: Picture) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(rgb_hw3)).decode()
