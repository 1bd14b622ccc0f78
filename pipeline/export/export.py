"""From the committed parts of an output to another form: which parts are done, and what is done with one.

Owns the order: the files of a part, its pieces, its receipt; when all parts have one, the files that all images share.
A command that is repeated goes on after the last receipt. A few parts are in memory at once, whatever the output is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from pipeline.errors import ConfigError, DamagedError, DeniedError, NotFoundError, StorageError
from pipeline.export.families import HIERARCHY, families_of, family_lines
from pipeline.export.forms import writer_of
from pipeline.export.images import SourceImages
from pipeline.export.names import Names, find_names
from pipeline.export.records import ExportImage, ExportSettings, Family, File, Form, Item, LeftOut, Writer
from pipeline.export.target import MOST_REASONS, Receipt, Target, check_places, part_key
from pipeline.output.committed import Committed, find_committed, planned_part, told
from pipeline.output.threads import in_threads
from pipeline.records import Chunk, ImageRow, Status
from pipeline.storage.parts import Part
from pipeline.storage.shards import ShardKind
from pipeline.storage.store import Store

THREADS = 4
"""Parts in memory at once. Much of the work waits for a store or is done without Python's lock."""

Show = Callable[[int, int], object]


@dataclass(frozen=True)
class Exported:
    """What lies at the target now.

    total    of all parts that are exported
    before   parts that were exported before this command
    planned  parts of the whole run
    broken   a sentence for each part that cannot be used
    """

    total: Receipt
    parts: int
    before: int
    planned: int
    broken: tuple[str, ...]


def export(
    out: str, to: str, *, form: Form, settings: ExportSettings, store: Store, show: Show = lambda _done, _of: None
) -> Exported:
    """Bring the export at `to` up to what is committed at `out`; both are canonical.

    raises  ConfigError if there is no output, or `to` is no place for this export; nothing is written
            StorageError if a store fails on the way; the same command goes on
    """
    settings.check(form)
    check_places(out, to)
    try:
        there = find_committed(out, store)
    except StorageError as error:
        raise ConfigError(f"{out} cannot be read: {error}") from error
    _check_source(there, to)
    target = Target(to, store)
    try:
        target.claim(form, settings, there.plan.sha256)
    except (DeniedError, NotFoundError) as error:
        raise ConfigError(f"to={to} cannot be written: {error}") from error
    return _Export(there, target, writer_of(form, settings), settings, store).run(show)


def _check_source(there: Committed, to: str) -> None:
    """What is written into a folder of images would be images of the next run."""
    for planned in there.plan.shards:
        if planned.shard.kind == ShardKind.FOLDER and (to + "/").startswith(planned.shard.uri.rstrip("/") + "/"):
            raise ConfigError(f"to={to} is inside the source {planned.shard.uri}; choose another place")


class _Export:
    def __init__(
        self, there: Committed, target: Target, writer: Writer, settings: ExportSettings, store: Store
    ) -> None:
        self._there, self._target, self._writer, self._settings, self._store = there, target, writer, settings, store
        self._source = SourceImages(there.plan, out=there.out, store=store)
        self._key_of = {chunk: part_key(chunk.chunk_id, there.info(chunk)) for chunk in there.chunks}
        self._joined = (*writer.joined, *((HIERARCHY,) if settings.hierarchy else ()))
        self._sections = [section.name for joined in self._joined for section in joined.sections]

    def run(self, show: Show) -> Exported:
        keys = list(self._key_of.values())
        known = self._target.finished(keys)
        if known is not None:
            return Exported(known, len(keys), len(keys), self._there.plan.chunk_count, ())
        self._target.unfinish()
        done = self._target.done()
        todo = [chunk for chunk in self._there.chunks if self._key_of[chunk] not in done]
        broken = self._export(todo, len(keys), show)
        used = [self._key_of[chunk] for chunk in self._there.chunks if chunk not in broken]
        if not used:
            raise ConfigError(
                f"{self._there.out}: none of its {len(keys):,} parts can be used{told(list(broken.values()))}"
            )
        total = self._target.total(used)
        for joined in self._joined:
            self._target.join(joined, used)
        for name, data in self._writer.constant:
            self._target.put(name, data)
        if not broken:
            self._target.finish(keys, total)
            if self._writer.is_one_file and len(keys) == self._there.plan.chunk_count:
                self._target.drop_pieces(self._sections, used)
        planned = self._there.plan.chunk_count
        return Exported(total, len(used), len(keys) - len(todo), planned, tuple(broken.values()))

    def _export(self, todo: Sequence[Chunk], of: int, show: Show) -> dict[Chunk, str]:
        """The parts that cannot be used, with a sentence for each."""
        plan, out = self._there.plan, self._there.out
        names = find_names(plan, out=out, store=self._store) if todo and self._writer.named_by_stem else None
        numbers = {chunk: number for number, chunk in enumerate(plan.chunks())}
        broken: dict[Chunk, str] = {}
        act = partial(self._part, names=names, numbers=numbers)
        for done, (chunk, problem) in enumerate(in_threads(act, todo, threads=THREADS), start=1):
            if problem:
                broken[chunk] = problem
            show(of - len(todo) + done, of)
        return broken

    def _part(self, chunk: Chunk, *, names: Names | None, numbers: dict[Chunk, int]) -> tuple[Chunk, str]:
        """And what is wrong with it; empty if it is exported."""
        part = planned_part(chunk, self._there.plan, out=self._there.out, store=self._store)
        if not isinstance(part, Part):
            return chunk, part
        try:
            self._write(chunk, part, names, numbers[chunk])
        except DamagedError as error:
            return chunk, f"{chunk.chunk_id}: {error}"
        return chunk, ""

    def _write(self, chunk: Chunk, part: Part, names: Names | None, number: int) -> None:
        """raises  DamagedError if a mask cannot be read; then there is no receipt"""
        key, taken = self._key_of[chunk], _Taken()
        pieces: dict[str, list[bytes]] = defaultdict(list)
        for given in self._writer.write(self._images(chunk, part.rows, names, taken), number):
            match given:
                case File():
                    self._target.put(given.name, given.data)
                case Item():
                    pieces[given.section].append(given.data)
                case LeftOut():
                    taken.take_back(given)
        pieces[HIERARCHY.name] = list(taken.families.values())
        for joined in self._joined:
            for section in joined.sections:
                self._target.put_piece(section.name, key, section.between.join(pieces[section.name]))
        self._target.put_receipt(key, taken.receipt())

    def _images(
        self, chunk: Chunk, rows: Sequence[ImageRow], names: Names | None, taken: _Taken
    ) -> Iterator[ExportImage]:
        """Those that are ok, one by one; what else there is, `taken` counts."""
        places = self._source.places(chunk) if self._settings.images else [None] * len(rows)
        for row, place in zip(rows, places, strict=True):
            if row.status is not Status.OK:
                taken.failed[str(row.status)] += 1
                continue
            data = self._source.read(row, place) if place else None
            if isinstance(data, str):
                taken.left_out.append(data)
                continue
            families = families_of(row, inside=self._settings.inside) if self._settings.hierarchy else ()
            taken.take(row, families)
            yield ExportImage(row, names.stem(row.file_name, row.image_id) if names else "", data, families)


@dataclass
class _Taken:
    """A receipt in the making."""

    images: int = 0
    empty: int = 0
    masks: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    left_out: list[str] = field(default_factory=list[str])
    families: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def take(self, row: ImageRow, families: Sequence[Family]) -> None:
        self.families[row.image_id] = family_lines(row, families)
        self.images += 1
        self.empty += not row.masks
        self.masks += len(row.masks)

    def take_back(self, left_out: LeftOut) -> None:
        """An image that was taken, and could not be held."""
        del self.families[left_out.row.image_id]
        self.images -= 1
        self.masks -= len(left_out.row.masks)
        self.left_out.append(left_out.why)

    def receipt(self) -> Receipt:
        reasons = tuple(self.left_out[:MOST_REASONS])
        return Receipt(self.images, self.empty, self.masks, dict(self.failed), len(self.left_out), reasons)
