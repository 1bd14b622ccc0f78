"""What crosses a border between the files of an export: settings, an image as a form is given it, what a form gives.

A form writes files of its own, and items of files that all images share. The items of a chunk are kept as a piece, and
the pieces are put one after the other when all are there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from pipeline.errors import ConfigError, ContractError
from pipeline.records import ImageRow


class Form(StrEnum):
    """What an export can be. docs/export.md describes each."""

    SA1B = "sa1b"
    COCO = "coco"
    COCO_RESULTS = "coco_results"
    LABEL_MAP = "label_map"
    PNG = "png"
    YOLO = "yolo"
    LABELME = "labelme"
    DATUMARO = "datumaro"


WITH_IMAGES = (Form.SA1B, Form.YOLO, Form.LABELME, Form.DATUMARO)
"""Forms that have a place for the images themselves."""

WITH_POLYGONS = (Form.YOLO, Form.LABELME)
MOST_TOLERANCE = 50.0


class Wins(StrEnum):
    """Which of the masks that have a pixel gets it in a label map."""

    SMALLEST = "smallest"
    """The one with the fewest pixels in all."""
    BEST = "best"
    """The one with the highest predicted IoU."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What shapes the files. All of it is kept beside them, so that another export does not mix with this one."""

    images: bool = False
    """Also write the images, byte for byte as they lie in the source."""
    wins: Wins = Wins.SMALLEST
    """Of form=label_map. Of two equal masks the earlier one wins."""

    tolerance: float = 0.0
    """Of polygons: pixels by which an outline may be off, for fewer points; 0 keeps every pixel."""
    hierarchy: bool = False
    """Also write hierarchy.csv: which mask of an image lies in which, and how deep."""
    inside: float = 0.9
    """Of export.hierarchy: the share of a mask's pixels that must be in another one."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= MOST_TOLERANCE:
            raise ConfigError(f"export.tolerance={self.tolerance} must be from 0 to {MOST_TOLERANCE:g} pixels")
        if not 0.5 < self.inside <= 1:
            raise ConfigError(f"export.inside={self.inside} must be above 0.5 and at most 1")

    def check(self, form: Form) -> None:
        """raises  ConfigError for a setting that this form has no use for"""
        if self.images and form not in WITH_IMAGES:
            raise ConfigError(f"export.images=true: {form} has no place for images; those with one are {_list()}")
        if self.tolerance and form not in WITH_POLYGONS:
            raise ConfigError(f"export.tolerance={self.tolerance}: only {' and '.join(WITH_POLYGONS)} have polygons")
        if self.wins is not Wins.SMALLEST and form is not Form.LABEL_MAP:
            raise ConfigError(f"export.wins={self.wins}: only form=label_map gives each pixel to one mask")


def _list() -> str:
    return ", ".join(WITH_IMAGES)


class Family(NamedTuple):
    """How a mask lies in the others of its image.

    parent  the place of the smallest mask that holds it; -1 for none
    depth   masks above it: 0 is a whole, 1 a part, more a subpart
    """

    parent: int
    depth: int


@dataclass(frozen=True, slots=True)
class ExportImage:
    """An image that is ok.

    stem   its name in files, without an extension; unique in the run, also where case does not count. Empty if the form
           names files by image id
    data   the bytes of the image; None without export.images
    families  of each mask; none without export.hierarchy
    """

    row: ImageRow
    stem: str = ""
    data: bytes | None = None
    families: tuple[Family, ...] = ()


class File(NamedTuple):
    """A file of its own. `name` is below TO; it comes from ids and stems alone."""

    name: str
    data: bytes


class Item(NamedTuple):
    """What an image adds to the section of a joined file that is called `section`."""

    section: str
    data: bytes


class LeftOut(NamedTuple):
    """An image that the form cannot hold, and a sentence that says why."""

    row: ImageRow
    why: str


@dataclass(frozen=True, slots=True)
class Section:
    """Items with `between` between any two of them, in the order of the plan, after `head`."""

    name: str
    head: bytes
    between: bytes


@dataclass(frozen=True, slots=True)
class Joined:
    """A file that all images share."""

    name: str
    sections: tuple[Section, ...]
    tail: bytes


class Writer(Protocol):
    """A form. `constant` are files that depend on no image."""

    @property
    def joined(self) -> tuple[Joined, ...]: ...

    @property
    def constant(self) -> tuple[File, ...]: ...

    @property
    def named_by_stem(self) -> bool:
        """Whether its images need a stem."""
        ...

    @property
    def is_one_file(self) -> bool:
        """Whether a joined file holds all of it, so that the pieces double what it takes."""
        ...

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        """The files and items of one chunk, the number-th of the plan. The same images give the same bytes."""
        ...


INDEX_COLUMNS = ("image_id", "file_name", "source", "path", "width", "height", "masks")
"""Of index.csv: which file belongs to which image of which source."""


def index_file(*, more: Sequence[str] = ()) -> Joined:
    """index.csv; `more` are columns of one form."""
    return Joined("index.csv", (Section("index", csv_line([*INDEX_COLUMNS, *more]), b""),), b"")


def index_item(row: ImageRow, path: str, *, more: Sequence[Any] = ()) -> Item:
    values = [row.image_id, row.file_name, row.source, path, row.width, row.height, len(row.masks), *more]
    return Item("index", csv_line(values))


def csv_line(values: Sequence[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode("utf-8", "backslashreplace")


def json_bytes(content: Any) -> bytes:
    """Without blanks. raises  ContractError for a number that JSON cannot hold"""
    try:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise ContractError(f"a mask holds a number that JSON cannot: {error}") from error
