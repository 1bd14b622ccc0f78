"""One chunk, from reading to commit: members in, one part out. Runs without Ray and without torch.

Owns the rule that every member becomes exactly one row. Does not know how masks are found (that is a callable), nor
who else works on the run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import (
    ChangedError,
    ContractError,
    InputError,
    NotFoundError,
    OutOfReachError,
    SourceError,
    TooManyBytesError,
)
from pipeline.masks.arrays import Points
from pipeline.masks.points import EVERYTHING, Prompts, Region
from pipeline.plan.layout import part_uri
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.part_metadata import part_metadata
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard
from pipeline.plan.point_grid import PointGrid
from pipeline.plan.versions import Versions, versions_here
from pipeline.records import Attempt, Chunk, ChunkReport, Funnel, ImageMasks, ImageRow, Member, Stage, Status
from pipeline.storage.images import DecodedImage, decode_image
from pipeline.storage.member_bytes import ByteRange, read_ahead
from pipeline.storage.parts import write_part
from pipeline.storage.read_ahead import ReadAhead
from pipeline.storage.store import Store
from pipeline.texts import redacted
from pipeline.work.earlier_part import earlier_part
from pipeline.work.prefetch import prefetch
from pipeline.work.regions import RegionFile, Regions
from pipeline.work.source_check import SourceCheck, concerned
from pipeline.work.stopwatch import Stopwatch

PREFETCH_DEPTH = 1
"""Decoded images that wait, beside the one that is segmented and the one that is being decoded. A worker has two
chunks, so it holds six images at most; one of the default max_pixels takes 0.8 GB."""


class GenerateMasks(Protocol):
    """An RGB image (H, W, 3) -> its masks. The stopwatch gets the seconds of each stage."""

    def __call__(
        self, image_HW3: npt.NDArray[np.uint8], watch: Stopwatch, prompts: Prompts = EVERYTHING, /
    ) -> ImageMasks: ...


@dataclass(frozen=True)
class WorkerContext:
    """What a worker keeps from chunk to chunk."""

    out: str
    plan: Plan
    store: Store
    generate: GenerateMasks
    versions: Versions = field(default_factory=versions_here)
    """Of what makes the parts here."""
    point_grid: PointGrid | None = None
    """That of the plan's hash, if the plan has one."""

    @cached_property
    def index(self) -> MemberIndex:
        return MemberIndex(self.plan, out=self.out, store=self.store)

    @cached_property
    def source(self) -> SourceCheck:
        return SourceCheck(self.index, self.store)

    @cached_property
    def grids(self) -> tuple[Points, ...] | None:
        settings = self.plan.settings
        sha256 = "" if self.point_grid is None else self.point_grid.sha256
        if sha256 != settings.point_grid_sha256:
            raise ContractError(f"the plan's grid of points is {settings.point_grid_sha256!r}, and here is {sha256!r}")
        return None if self.point_grid is None else self.point_grid.by_layer(settings.recipe)

    @cached_property
    def regions(self) -> Regions | None:
        settings = self.plan.settings
        if settings.recipe.roi is None:
            return None
        return Regions(settings.recipe.roi, self.store, settings.max_pixels, settings.max_bytes)


Mark = Callable[[int | None], None]
"""Called with an image's ordinal before the work on it, and with None before the index is read or the part written."""


def no_mark(_ordinal: int | None) -> None:
    """For callers that keep no journal."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A member after reading: its pixels, or the status and the reason why there are none."""

    member: Member
    sha256: str = ""
    byte_count: int = 0
    image: DecodedImage | None = None
    region_HW: Region | None = None
    status: Status = Status.OK
    error: str = ""
    width: int = 0
    height: int = 0


def process_chunk(attempt: Attempt, context: WorkerContext, *, mark: Mark = no_mark) -> ChunkReport:
    """Read, decode, segment and commit one chunk.

    raises  SourceError if the source is not what was planned; DeniedError if it may not be read
            StorageError if the part cannot be written
            ContractError if a row is lost, or the plan and its member index disagree
    """
    plan, watch, chunk = context.plan, Stopwatch(), attempt.chunk
    mark(None)
    members = context.index.read(chunk.shard, chunk.start, chunk.stop)
    earlier = earlier_part(plan, chunk, out=context.out, store=context.store) if attempt.again else None
    _expect(len(members) == chunk.stop - chunk.start, chunk, f"its index holds {len(members)} members")
    rows = list(earlier.kept) if earlier else []
    done = {row.image_id for row in rows}
    funnel = earlier.funnel if earlier else Funnel()
    bytes_read = 0
    to_do = [member for member in members if member.image_id not in done]
    with closing(_loading(to_do, attempt, context, watch, mark)) as loading:
        for loaded in loading:
            if not attempt.careful:
                mark(loaded.member.ordinal)
            row, image_funnel = _row(loaded, context, watch)
            rows.append(row)
            funnel += image_funnel
            bytes_read += loaded.byte_count
    mark(None)
    order = {member.image_id: number for number, member in enumerate(members)}
    rows.sort(key=lambda row: order.get(row.image_id, -1))
    _expect([row.image_id for row in rows] == [member.image_id for member in members], chunk, "rows were lost")
    context.source.expect_source(plan.planned(chunk.shard), chunk, rows)
    with watch.stage(Stage.WRITE):
        data = write_part(
            rows,
            format=plan.settings.format,
            metadata=part_metadata(plan, context.versions, funnel, earlier.versions if earlier else ()),
        )
        if earlier:
            created = earlier.replace(data, context.store)
        else:
            created = context.store.put_if_absent(part_uri(context.out, plan, chunk), data)
        sha256 = hashlib.sha256(data).hexdigest()
    return ChunkReport(
        chunk_id=chunk.chunk_id,
        won=created is not None,
        images=dict(Counter(str(row.status) for row in rows)),
        masks=sum(len(row.masks) for row in rows),
        funnel=funnel,
        seconds=dict(watch.seconds),
        bytes_read=bytes_read,
        bytes_written=len(data),
        sha256=sha256,
        etag="" if created is None else created.etag,
        halved=watch.halved,
    )


def _loading(
    members: Sequence[Member], attempt: Attempt, context: WorkerContext, watch: Stopwatch, mark: Mark
) -> Generator[Loaded]:
    """The images in order: read and decoded ahead, or carefully, each marked before its bytes are decoded."""
    loading = _load(members, attempt, context, watch, mark)
    return loading if attempt.careful else prefetch(loading, depth=PREFETCH_DEPTH)


def _load(
    members: Sequence[Member], attempt: Attempt, context: WorkerContext, watch: Stopwatch, mark: Mark
) -> Generator[Loaded]:
    planned = context.plan.planned(attempt.chunk.shard)
    ahead = read_ahead([_place(member, planned, context) for member in members], context.store)
    for member in members:
        if member.ordinal in attempt.crashed:
            yield Loaded(member, status=Status.CRASHED, error=attempt.crashed[member.ordinal])
            continue
        if member.broken:
            yield Loaded(member, status=Status.UNREADABLE, error=member.broken)
            continue
        if attempt.careful:
            mark(None)  # a store that does not answer is no image's fault
        try:
            with watch.stage(Stage.READ):
                data = _read(member, planned, context, ahead)
                region = None if context.regions is None else context.regions.read(member.key)
        except OutOfReachError as error:
            raise SourceError(f"{error}; then repeat the command", concerned(planned.shard)) from error
        except (NotFoundError, ChangedError, TooManyBytesError) as error:
            yield _unread(member, error, context.plan.settings.max_bytes)
        except InputError as error:
            yield Loaded(member, status=error.status, error=error.reason)
        else:
            if attempt.careful:
                mark(member.ordinal)
            with watch.stage(Stage.DECODE):
                loaded = _decode(member, data, region, context.plan.settings)
            del data, region  # or they would stay until the next files are read
            yield loaded


def _unread(member: Member, error: NotFoundError | ChangedError | TooManyBytesError, max_bytes: int) -> Loaded:
    if isinstance(error, TooManyBytesError):
        return Loaded(member, status=Status.TOO_LARGE, error=f"{error.size:,} bytes; run.max_bytes is {max_bytes:,}")
    status = Status.MISSING if isinstance(error, NotFoundError) else Status.CHANGED
    return Loaded(member, status=status, error=str(error))


def _place(member: Member, planned: PlannedShard, context: WorkerContext) -> ByteRange:
    return ByteRange.of(member, kind=planned.shard.kind, column=context.plan.settings.image_column)


def _read(member: Member, planned: PlannedShard, context: WorkerContext, ahead: ReadAhead) -> bytes:
    """raises  NotFoundError, ChangedError, TooManyBytesError, InputError for the image alone; all else for its chunk"""
    place = _place(member, planned, context)
    try:
        return place.read(context.store, limit=context.plan.settings.max_bytes, ahead=ahead)
    except ChangedError:
        etag = context.source.etag_of_changed(planned, member)
        if etag is None:
            raise
        return replace(place, etag=etag).read(context.store, ahead=ahead)


def _decode(member: Member, data: bytes, region: RegionFile | None, settings: OutputSettings) -> Loaded:
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        image = decode_image(data, max_pixels=settings.max_pixels, depth=settings.depth)
        height, width = image.rgb_HW3.shape[:2]
        region_HW = None if region is None else region.pixels((height, width))
    except InputError as error:
        return Loaded(
            member,
            sha256=sha256,
            byte_count=len(data),
            status=error.status,
            error=error.reason,
            width=error.width,
            height=error.height,
        )
    return Loaded(member, sha256=sha256, byte_count=len(data), image=image, region_HW=region_HW)


def _row(loaded: Loaded, context: WorkerContext, watch: Stopwatch) -> tuple[ImageRow, Funnel]:
    member, image = loaded.member, loaded.image
    if image is None:
        row = ImageRow(
            image_id=member.image_id,
            file_name=member.key,
            source=member.uri,
            status=loaded.status,
            error=redacted(loaded.error),
            width=loaded.width,
            height=loaded.height,
            sha256=loaded.sha256,
        )
        return row, Funnel()
    result = context.generate(image.rgb_HW3, watch, Prompts(context.grids, loaded.region_HW))
    stride = context.plan.annotation_stride
    if len(result.masks) > stride:
        raise ContractError(f"{member.key}: {len(result.masks)} masks do not fit in {stride} annotation ids")
    height, width = image.rgb_HW3.shape[:2]
    row = ImageRow(
        image_id=member.image_id,
        file_name=member.key,
        source=member.uri,
        status=Status.OK,
        error=image.note,
        width=width,
        height=height,
        exif_orientation=image.exif_orientation,
        sha256=loaded.sha256,
        masks=tuple(result.masks),
        first_annotation_id=member.ordinal * stride + 1,  # 0 means "no match" to pycocotools' evaluation
    )
    return row, result.funnel


def _expect(condition: bool, chunk: Chunk, what: str) -> None:  # noqa: FBT001  # reads as an assertion
    if not condition:
        raise ContractError(f"{chunk.chunk_id}: {chunk.stop - chunk.start} images planned, but {what}")
