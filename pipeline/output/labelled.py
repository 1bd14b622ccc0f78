"""Images whose masks are known: a finished output together with its images, or SA-1B shards as they are released.

Owns where an image and its masks lie. Opening reads the plan and its member index, or the headers of the tars. Images
and masks are read when they are asked for.
"""

from __future__ import annotations

import json
import logging
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, InputError, StorageError
from pipeline.masks.rle import Mask_HW, mask_pixels
from pipeline.plan.layout import part_uri
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import Plan
from pipeline.plan.planning import load_plan
from pipeline.records import Chunk, ImageRow
from pipeline.settings import Depth
from pipeline.storage.images import decode_image
from pipeline.storage.kinds import is_image, is_tar, sa_number
from pipeline.storage.member_bytes import ByteRange
from pipeline.storage.parts import read_part
from pipeline.storage.store import Store
from pipeline.storage.tars import EntryKind, scan_tar

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image. `row` is its place in the part at `masks`, or -1 if a JSON file of its own lies there."""

    image_id: int
    image: ByteRange | None
    masks: ByteRange
    row: int = -1


@dataclass(frozen=True, slots=True)
class KnownMasks:
    """The masks of one image in COCO's packed run lengths; scores are predicted IoU, 0 where none is told."""

    hw: tuple[int, int]
    counts: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass
class LabelledImages:
    """Images by number. Pickles; of an output the part that was read last is kept."""

    store: Store
    entries: list[LabelledImage]
    plan: Plan | None = None
    _part: tuple[str, tuple[ImageRow, ...]] = field(default=("", ()), repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    def masks(self, number: int) -> KnownMasks:
        """No masks and no size for an image that failed.

        raises  StorageError if they cannot be read
        """
        entry = self.entries[number]
        return _of_row(self._rows(entry.masks.uri)[entry.row]) if entry.row >= 0 else self._annotated(entry)

    def pixels(self, number: int, *, max_pixels: int) -> npt.NDArray[np.uint8]:
        """The image, (H, W, 3).

        raises  StorageError if it is not there, is no image, or is larger than `max_pixels`
        """
        image = self.entries[number].image
        if image is None:
            raise StorageError(f"there is no image beside {self.entries[number].masks.uri}")
        try:
            return decode_image(image.read(self.store), max_pixels=max_pixels, depth=self._depth()).rgb_HW3
        except InputError as error:
            raise StorageError(f"{image.uri} at byte {image.offset}: {error.reason}") from error

    def _depth(self) -> Depth:
        """By which the masks' own pixels were made."""
        return Depth.SCALE if self.plan is None else self.plan.settings.depth

    def _rows(self, uri: str) -> tuple[ImageRow, ...]:
        if self._part[0] != uri and self.plan is not None:
            self._part = uri, read_part(self.store.read(uri), format=self.plan.settings.format, name=uri).rows
        return self._part[1]

    def _annotated(self, entry: LabelledImage) -> KnownMasks:
        try:
            told: dict[str, Any] = json.loads(entry.masks.read(self.store))
            masks: list[dict[str, Any]] = told["annotations"]
            counts = tuple(str(mask["segmentation"]["counts"]) for mask in masks)
            scores = tuple(float(mask.get("predicted_iou", 0.0)) for mask in masks)
            return KnownMasks((int(told["image"]["height"]), int(told["image"]["width"])), counts, scores)
        except (ValueError, KeyError, TypeError) as error:
            where = f"{entry.masks.uri} at byte {entry.masks.offset}"
            raise StorageError(f"{where} is no SA-1B annotation file ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class UsableImages:
    """Labelled images as pixels, for a training; one that cannot be used is left out, with a line in the log.

    max_pixels  larger images are not read
    """

    images: LabelledImages
    max_pixels: int

    def __len__(self) -> int:
        return len(self.images)

    def read(self, number: int) -> tuple[npt.NDArray[np.uint8], list[Mask_HW]] | None:
        """The image (H, W, 3) and its masks (H, W); None if it has no masks, cannot be read or is of another size."""
        try:
            known = self.images.masks(number)
            if not known.counts:
                return None
            rgb_HW3 = self.images.pixels(number, max_pixels=self.max_pixels)
        except StorageError as error:
            log.warning("left out: %s", error)
            return None
        if rgb_HW3.shape[:2] != known.hw:
            log.warning("left out: image %d is not of its masks' size", self.images.entries[number].image_id)
            return None
        return rgb_HW3, [mask_pixels(counts, known.hw) for counts in known.counts]


def same_images(found: LabelledImages, truth: LabelledImages) -> Iterator[tuple[KnownMasks, KnownMasks]]:
    """What `found` and `truth` know of each image of `truth`.

    raises  ConfigError if one of these images is not in `found`, or has another size there
    """
    number_of = {entry.image_id: number for number, entry in enumerate(found.entries)}
    missing = [entry.image_id for entry in truth.entries if entry.image_id not in number_of]
    if missing:
        raise ConfigError(
            f"{len(missing)} of the {len(truth)} images of truth= (ids {missing[:3]}) are not in masks=; "
            "generate masks of the same images"
        )
    for number, entry in enumerate(truth.entries):
        known, masks = truth.masks(number), found.masks(number_of[entry.image_id])
        if masks.counts and masks.hw != known.hw:
            raise ConfigError(f"image {entry.image_id} is {masks.hw} in masks= and {known.hw} in truth=")
        yield masks, known


def _of_row(row: ImageRow) -> KnownMasks:
    masks = row.masks
    return KnownMasks(
        (row.height, row.width), tuple(mask.counts for mask in masks), tuple(mask.predicted_iou for mask in masks)
    )


def open_labelled(source: str, store: Store) -> LabelledImages:
    """What `source` names: the OUT of a run, or a tar or folder of SA-1B's images and annotation files.

    raises  ConfigError if it holds no masks; StorageError
    """
    plan = None if is_tar(source) else load_plan(source, store=store)
    entries = list(_of_run(source, plan, store) if plan else _pairs(source, store))
    if not entries:
        raise ConfigError(f"{source} holds neither an output of Maskmill nor annotation files sa_<n>.json")
    return LabelledImages(store, entries, plan)


def _of_run(out: str, plan: Plan, store: Store) -> Iterator[LabelledImage]:
    """Planned images, in order. A part that is not there is found missing when its first image is asked for."""
    index = MemberIndex(plan, out=out, store=store)
    for planned in plan.shards:
        for chunk in planned.chunks(plan.settings.images_per_chunk):
            yield from images_of_chunk(chunk, plan, index=index, out=out)


def images_of_chunk(chunk: Chunk, plan: Plan, *, index: MemberIndex, out: str) -> list[LabelledImage]:
    """Planned images of one chunk, in the order of the rows of its part, which is not read.

    raises  StorageError if the member index cannot be read
    """
    part = ByteRange(part_uri(out, plan, chunk))
    members = index.read(chunk.shard, chunk.start, chunk.stop)
    kind, column = plan.planned(chunk.shard).shard.kind, plan.settings.image_column
    return [
        LabelledImage(
            member.image_id, None if member.broken else ByteRange.of(member, kind=kind, column=column), part, row
        )
        for row, member in enumerate(members)
    ]


def _pairs(source: str, store: Store) -> Iterator[LabelledImage]:
    """Annotation files, and the image of the same name beside each if there is one; by image id."""
    images: dict[str, ByteRange] = {}
    masks: dict[str, tuple[int, ByteRange]] = {}
    for name, place in _files(source, store):
        stem, extension = posixpath.splitext(name)
        number = sa_number(name)
        if extension == ".json" and number is not None:
            masks[stem] = number, place
        elif is_image(name):
            images[stem] = place
    for stem, (number, place) in sorted(masks.items(), key=lambda item: (item[1][0], item[0])):
        yield LabelledImage(number, images.get(stem), place)


def _files(source: str, store: Store) -> Iterator[tuple[str, ByteRange]]:
    """Names without the tar's own, so that an image and its masks may lie in neighbouring tars."""
    if not is_tar(source):
        for info in store.list(source):
            if is_tar(info.uri):
                yield from _files(info.uri, store)
            else:
                yield posixpath.basename(info.uri), ByteRange(info.uri, etag=info.etag)
        return
    tar = store.head(source)
    with store.open(source, etag=tar.etag) as stream:
        for entry in scan_tar(stream, size=tar.size, uri=source):
            if entry.kind is EntryKind.FILE and entry.length:
                yield posixpath.basename(entry.name), ByteRange(source, entry.offset, entry.length, tar.etag)
