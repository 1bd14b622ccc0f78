"""Making a plan, or finding the one that is there.

Owns the order of planning (member indexes first, plan.json last, by one conditional write) and the comparison of
settings on resume. The source is listed once in a run's life; a resume reads the plan alone. Memory grows with the
number of images only by their `sa_<n>` numbers and a folder's packed index.

Legend: N numbers.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, ContractError, NotFoundError
from pipeline.plan.ids import annotation_stride, id_base, shared_numbers
from pipeline.plan.layout import members_uri, plan_uri
from pipeline.plan.plan import (
    LARGEST_OF_COMPRESSED,
    UNPACKED_BY,
    OutputSettings,
    Plan,
    PlannedShard,
    plan_from_json,
    plan_to_json,
)
from pipeline.plan.scan import index_shards
from pipeline.plan.versions import Versions, versions_here
from pipeline.records import Shard
from pipeline.storage.ignored import IgnoredEntries
from pipeline.storage.indexing import ShardIndex, ShardKind
from pipeline.storage.kinds import IMAGE_EXTENSIONS
from pipeline.storage.members import IndexPiece, without_numbers
from pipeline.storage.shards import ShardSource, find_shards, spellings
from pipeline.storage.store import ObjectInfo, Store
from pipeline.texts import counted

PUT_THREADS = 8
"""Pieces of member indexes written at once."""
SECONDS_BETWEEN_NEWS = 10.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """A plan that is now in OUT. `created` is False if it was there before, or if another planner was faster."""

    plan: Plan
    created: bool
    frozen_at: datetime | None = None
    """When it was written, if it was there before."""


def say_nothing(_sentence: str) -> None:
    """For callers that show no progress."""


def create_or_load_plan(
    settings: OutputSettings, *, out: str, store: Store, say: Say = say_nothing, versions: Versions | None = None
) -> Planned:
    """The run's plan: the one in OUT if there is one, else a new one from the source.

    say       told now and then how far planning is
    versions  kept in a new plan; None for those of this process
    raises    ConfigError if the plan in OUT was made with other settings, or the source holds no image
    """
    existing = load_plan(out, store=store)
    if existing is not None:
        existing = _resumed(existing, settings, out=out)
        frozen_at = store.modified(plan_uri(out))
        say(f"resuming: the plan is {frozen_since(frozen_at)}")
        return Planned(plan=existing, created=False, frozen_at=frozen_at)
    plan = _plan_source(settings, out=out, store=store, say=say)
    plan = replace(plan, versions=tuple(sorted((versions or versions_here(settings.model_family)).items())))
    if store.put_if_absent(plan_uri(out), plan_to_json(plan)):
        return Planned(plan=plan, created=True)
    theirs = load_plan(out, store=store)
    if theirs is None:
        raise ContractError(f"{plan_uri(out)} was there when it was to be created, and is gone now")
    return Planned(plan=_resumed(theirs, settings, out=out), created=False)


def frozen_since(moment: datetime) -> str:
    """What somebody should know who has added images to the source and repeats the command."""
    return f"frozen since {moment:%Y-%m-%d %H:%M:%S} UTC; images that came to the source later need another out="


def load_plan(out: str, *, store: Store) -> Plan | None:
    """The plan in OUT, or None if OUT has none."""
    uri = plan_uri(out)
    try:
        data = store.read(uri)
    except NotFoundError:
        return None
    return plan_from_json(data, uri=uri)


def _plan_source(settings: OutputSettings, *, out: str, store: Store, say: Say) -> Plan:
    news = _News(say)
    canonical, sources, beside = find_shards(settings.source, store, listed=news.listed)
    _warn_of_compressed(sources, say)
    ignored = IgnoredEntries()
    ignored.add(beside)
    with ThreadPoolExecutor(PUT_THREADS) as pool:
        writer = _Writer(out, store, pool)
        drafts: list[_Draft] = []
        total = 0
        for source, index in zip(sources, _indexes(sources, store, settings), strict=True):
            pieces = tuple(writer.write(source.name, piece) for piece in index.pieces)
            drafts.append(_Draft(source, first_ordinal=total, ignored_count=index.ignored_count, pieces=pieces))
            ignored.add(index.ignored)
            total += index.member_count
            news.tell(f"{len(drafts):,} of {counted(len(sources), 'shard')} indexed, {counted(total, 'image')}")
        if not total:
            raise _no_image(settings.source, drafts)
        annotation_stride(settings.recipe, images=total, grid_points=settings.point_grid_points)
        numbers = [piece.numbers_N for draft in drafts for piece in draft.pieces]
        shared_N = shared_numbers(numbers)
        shards = tuple(draft.settled(writer, shared_N) for draft in drafts)
    settings = replace(settings, source=canonical)
    return Plan(settings=settings, shards=shards, id_base=id_base(numbers), ignored=ignored.counted())


def _warn_of_compressed(sources: Sequence[ShardSource], say: Say) -> None:
    compressed = [each.uri for each in sources if each.kind is ShardKind.COMPRESSED_TAR]
    if compressed:
        say(
            f"{len(compressed)} of the shards are compressed tars (the first is {compressed[0]}). An image there is "
            f"reached by unpacking all before it, so the chunks are larger: {UNPACKED_BY} a tar of up to "
            f"{UNPACKED_BY * LARGEST_OF_COMPRESSED:,} images. Images do not shrink, and plain tars are read faster"
        )


def _no_image(source: str, drafts: list[_Draft]) -> ConfigError:
    ignored = sum(draft.ignored_count for draft in drafts)
    return ConfigError(
        f"source={source} holds no image ({len(drafts)} shards, {ignored} other entries); "
        f"images end in {', '.join(sorted(IMAGE_EXTENSIONS))}"
    )


class _News:
    """Says how far planning is, at most every ten seconds."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._last = time.monotonic()

    def listed(self, images: int) -> None:
        self.tell(f"{counted(images, 'image')} listed")

    def tell(self, standing: str) -> None:
        if time.monotonic() - self._last >= SECONDS_BETWEEN_NEWS:
            self._last = time.monotonic()
            self._say(f"planning: {standing}")


def _indexes(sources: Sequence[ShardSource], store: Store, settings: OutputSettings) -> Iterator[ShardIndex]:
    return index_shards(sources, store, mixed_lists=settings.mixed_lists, image_column=settings.image_column)


@dataclass(frozen=True, eq=False)
class _WrittenPiece:
    """A piece that is being written into OUT, or is there; its bytes are not kept."""

    sha256: str
    rows: int
    numbers_N: npt.NDArray[np.int64]
    writing: Future[ObjectInfo | None]


class _Writer:
    """Puts pieces of member indexes into OUT while the next ones are made. A later call raises what failed."""

    def __init__(self, out: str, store: Store, pool: ThreadPoolExecutor) -> None:
        self._out = out
        self._store = store
        self._pool = pool
        self._in_flight: deque[Future[ObjectInfo | None]] = deque()

    def write(self, shard_name: str, piece: IndexPiece) -> _WrittenPiece:
        while self._in_flight and (self._in_flight[0].done() or len(self._in_flight) > 2 * PUT_THREADS):
            self._in_flight.popleft().result()
        sha256 = hashlib.sha256(piece.data).hexdigest()
        uri = members_uri(self._out, shard_name, sha256)
        writing = self._pool.submit(self._store.put_if_absent, uri, piece.data)
        self._in_flight.append(writing)
        return _WrittenPiece(sha256, piece.rows, piece.numbers_N, writing)

    def written(self, shard_name: str, piece: _WrittenPiece, shared_N: npt.NDArray[np.int64]) -> str:
        """The sha256 of the piece, written by now, without the numbers in `shared_N`, which several images have."""
        piece.writing.result()
        if not np.isin(piece.numbers_N, shared_N).any():
            return piece.sha256
        data = self._store.read(members_uri(self._out, shard_name, piece.sha256))
        again = self.write(shard_name, without_numbers(IndexPiece(data, piece.rows, piece.numbers_N), shared_N))
        again.writing.result()
        return again.sha256


@dataclass(frozen=True)
class _Draft:
    """A shard that is indexed, while it is not known yet which of its numbers other shards have too."""

    source: ShardSource
    first_ordinal: int
    ignored_count: int
    pieces: tuple[_WrittenPiece, ...]

    def settled(self, writer: _Writer, shared_N: npt.NDArray[np.int64]) -> PlannedShard:
        shard = Shard(
            name=self.source.name,
            uri=self.source.uri,
            kind=str(self.source.kind),
            member_count=sum(piece.rows for piece in self.pieces),
            ignored_count=self.ignored_count,
        )
        hashes = tuple(writer.written(shard.name, piece, shared_N) for piece in self.pieces)
        return PlannedShard(shard=shard, first_ordinal=self.first_ordinal, members_sha256=hashes)


def _resumed(plan: Plan, asked: OutputSettings, *, out: str) -> Plan:
    """The plan, with the settings of the command where it is too old to have its own.

    Sources are compared by their names. What lies there now does not matter: the plan has its members. What a
    checkpoint is follows from its hash, which is compared; another version may word it otherwise, or not say it.

    raises  ConfigError if it was made with other settings
    """
    if plan.settings.source in spellings(asked.source):
        asked = replace(asked, source=plan.settings.source)
    told = ("checkpoint_notes", "model_family", "checkpoint_layout")
    asked = replace(asked, **{name: getattr(plan.settings, name) for name in told})
    before, now = (settings.named(version=plan.version) for settings in (plan.settings, asked))
    pairs = {name: (before.get(name), now.get(name)) for name in before | now}
    changed = [f"{name} {then!r} -> {asked_now!r}" for name, (then, asked_now) in pairs.items() if then != asked_now]
    if changed:
        raise ConfigError(
            f"{out} was planned with other settings: {', '.join(changed)}. "
            "Resume with the settings it was planned with, or choose another out="
        )
    return replace(plan, settings=asked)
