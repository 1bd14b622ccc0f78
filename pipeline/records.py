"""The records that cross a border between two rooms, and nothing else.

Frames: pixels are (x, y), with the origin at the top left of the image after decoding and EXIF rotation. Boxes are XYXY
or XYWH, as their names say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """How an image ended. Everything but OK is a row without annotations."""

    OK = "ok"
    UNREADABLE = "unreadable"
    """The bytes cannot be decoded as an image, or the tar around them is broken."""
    TOO_LARGE = "too_large"
    """More pixels than `run.max_pixels`, judged by the header; or more bytes than `run.max_bytes`, judged before."""
    MISSING = "missing"
    """The object was not there, or could not be read with these credentials."""
    CHANGED = "changed"
    """The object is not the one that was planned."""
    CRASHED = "crashed"
    """Three times the process that worked on this image died, hung or failed."""


class Ending(StrEnum):
    """Why a driver's loop ended."""

    DONE = "done"
    """Nothing is waiting: every chunk is committed or given up."""
    STOPPED = "stopped"
    """A signal came. This and the rest leave chunks that the same command does later."""
    DEADLINE = "deadline"
    """`run.deadline_s` was over."""
    FAILURES = "failures"
    """More images failed than `run.stop_after_failed_fraction` allows."""


class Stage(StrEnum):
    """What a worker spends its time on, in the order in which an image passes the stages."""

    READ = "read"
    """Reading bytes from the store."""
    DECODE = "decode"
    """Turning bytes into pixels."""
    TURN = "turn"
    """Waiting for the device while another chunk has it."""
    COMPUTE = "compute"
    """Working on the device."""
    RLE = "rle"
    """Turning predictions into run lengths, on the CPU."""
    WRITE = "write"
    """Making the part and uploading it."""


@dataclass(frozen=True, slots=True)
class Member:
    """One image inside a shard, as planned.

    `offset` and `length` are bytes within the object at `uri`; a whole object has offset 0. In zips and Parquet files
    they mean what storage/member_bytes.py says.
    `broken` says why the shard has no usable bytes here (the rest of a cut tar, say). It is empty for real images.
    """

    ordinal: int
    image_id: int
    key: str
    uri: str
    offset: int
    length: int
    etag: str = ""
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Entries of the source of one kind that are not worked on, and the name of the first."""

    kind: str
    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Shard:
    """One entry of the source: a folder or prefix, a tar, a zip, a Parquet file, or a list. `name` is unique in the run
    and safe in a path."""

    name: str
    uri: str
    kind: str
    member_count: int
    ignored_count: int
    """Entries that are not worked on."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive members [start, stop) of one shard: the unit of work, of retry and of commit."""

    shard: str
    index: int
    start: int
    stop: int

    @property
    def chunk_id(self) -> str:
        return f"{self.shard}-{self.index:05d}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a chunk, as it is sent to a worker.

    number    counts from 1, over all workers of one driver
    careful   the worker does one image after the other and prepares none ahead, so that a death can be blamed on one
    crashed   ordinals of images that the worker must not touch, and the sentence for their rows
    again     the chunk has a part already, and its failed rows are to be tried once more
    """

    chunk: Chunk
    number: int = 1
    careful: bool = False
    crashed: Mapping[int, str] = field(default_factory=dict[int, str])
    again: bool = False

    @property
    def key(self) -> str:
        """The name of this attempt in the journal."""
        return f"{self.chunk.chunk_id}#{self.number}"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What the journal knows of an attempt.

    ordinal  the image that it works on; None before the first image and after the last one
    images   how many images it has begun
    age_s    for how long it has been there
    """

    ordinal: int | None
    images: int
    age_s: float


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A chunk that this run will not try again. `why` is a sentence."""

    chunk: Chunk
    why: str


@dataclass(frozen=True, slots=True)
class Mask:
    """One surviving mask in the image frame, as SA-1B describes it.

    counts             COCO compressed RLE of the (height, width) mask, column-major
    bbox_xywh          SA-1B's own convention: w = xmax - xmin, h = ymax - ymin (pixel indices, inclusive)
    area               pixels in the mask
    predicted_iou      the model's estimate; float32 widened, may exceed 1
    stability_score    in [0, 1]
    point_xy           the prompt, image frame
    crop_box_xywh      the crop it was found in
    crop_layer         0 for the full image
    multimask_index    which of the model's outputs it was (0, 1, 2)
    """

    counts: str
    bbox_xywh: tuple[float, float, float, float]
    area: int
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]
    crop_box_xywh: tuple[float, float, float, float]
    crop_layer: int
    multimask_index: int


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many candidates there were, how many each step removed, and how many were kept. The removed and the kept add
    up to `candidates`."""

    candidates: int = 0
    low_predicted_iou: int = 0
    low_stability: int = 0
    at_crop_edge: int = 0
    duplicate_in_crop: int = 0
    duplicate_across_crops: int = 0
    too_small: int = 0
    duplicate_after_clean: int = 0
    too_large: int = 0
    kept: int = 0

    def __add__(self, other: Funnel) -> Funnel:
        return Funnel(*(getattr(self, name) + getattr(other, name) for name in Funnel.__slots__))


@dataclass(frozen=True, slots=True)
class ImageMasks:
    """What the generator returns for one image."""

    masks: tuple[Mask, ...]
    funnel: Funnel


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One row of the output: a member and what became of it. `width` and `height` are 0 if they were never known."""

    image_id: int
    file_name: str
    source: str
    status: Status
    error: str = ""
    """Why there are no masks; of an image that is ok, what was odd about its file."""
    width: int = 0
    height: int = 0
    exif_orientation: int = 1
    sha256: str = ""
    masks: tuple[Mask, ...] = ()
    first_annotation_id: int = 0
    """The id of the first mask; the following masks have the following ids."""


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """What a worker tells the driver about a committed chunk: small, no pixels, no masks.

    `won` is False if another writer had committed the same part before. The counts are those of this writer either way.
    """

    chunk_id: str
    won: bool
    images: dict[str, int]
    masks: int
    funnel: Funnel
    seconds: dict[Stage, float] = field(default_factory=dict[Stage, float])
    """Wall seconds per stage."""
    bytes_read: int = 0
    bytes_written: int = 0
    """The part's size."""
    sha256: str = ""
    """Of the part's bytes."""
    etag: str = ""
    """The store's, of the object that this writer created; empty if it created none, or the store has none."""
    halved: int = 0
    """How often a batch was halved because the device or the machine had no memory for it."""
