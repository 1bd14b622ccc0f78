"""The finish: every part of a complete run counted for the manifest, most of them without being read.

A part's writer knows its size, checksum and counts. What it reported is taken if one listing of data/ shows the very
object that it created (summaries.py has the rule): first of this driver's own workers, then of those of other drivers,
as these wrote it down. Any other part is read whole: its driver was killed before it could write, or its worker died
between commit and report, or it was replaced since, or the store gives no etags. So the manifest's checksum is that of
the bytes that were written. Whether these are still the ones that lie there is what `make verify` finds out: it reads
all of them.

Owns the choice between believing and reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing

from pipeline.errors import ChangedError, ContractError, StorageError
from pipeline.output.manifest import CountedPart, Manifest, list_data
from pipeline.output.summaries import Summary, borne_out, failures_of, kept, read_summaries, summary_of
from pipeline.output.threads import in_threads
from pipeline.plan.layout import part_name, part_uri
from pipeline.plan.plan import Plan
from pipeline.progress import Progress
from pipeline.records import Chunk, ChunkReport
from pipeline.storage.parts import count_part
from pipeline.storage.store import ObjectInfo, Store
from pipeline.texts import counted

READ_THREADS = 4
SHOWN = 5
"""Names of parts in a sentence."""


def count_parts(
    plan: Plan, *, out: str, store: Store, progress: Progress, reports: Sequence[ChunkReport] = ()
) -> Manifest:
    """Of a run whose chunks are all committed. What had to be read is written down as summaries: a finish that is
    interrupted goes on where it was.

    reports  of this driver's workers

    raises   StorageError if a part is gone or does not hold its chunk's rows
    """
    chunks = list(plan.chunks())
    manifest = Manifest(plan.sha256, _counted_parts(chunks, plan, reports, out=out, store=store, progress=progress))
    if manifest.images != plan.image_count:
        raise ContractError(f"{out}: {plan.image_count} images planned, {manifest.images} rows counted")
    return manifest


def chunks_with_failures(
    plan: Plan, committed: Collection[str], manifest: Manifest | None, *, out: str, store: Store, progress: Progress
) -> frozenset[str]:
    """Ids of the committed chunks that have rows that are not ok.

    raises  StorageError if a part does not hold its chunk's rows
    """
    chunks = [chunk for chunk in plan.chunks() if chunk.chunk_id in committed]
    parts = manifest.parts if manifest else _counted_parts(chunks, plan, (), out=out, store=store, progress=progress)
    failed = {part.name for part in parts if part.failures}
    return frozenset(chunk.chunk_id for chunk in chunks if part_name(plan, chunk) in failed)


def _counted_parts(
    chunks: Sequence[Chunk], plan: Plan, reports: Sequence[ChunkReport], *, out: str, store: Store, progress: Progress
) -> tuple[CountedPart, ...]:
    """The parts of these chunks, in their order."""
    listed = list_data(out, store)
    summaries = [summary for report in reports if (summary := summary_of(report, plan)) is not None]
    known = borne_out(summaries, listed, plan)
    if any(part_name(plan, chunk) not in known for chunk in chunks):
        summaries += read_summaries(plan, out=out, store=store)
        known = borne_out(summaries, listed, plan)
    rest = [chunk for chunk in chunks if part_name(plan, chunk) not in known]
    if rest:
        _say_doubts(summaries, {part_name(plan, chunk) for chunk in rest}, progress)
        before = len(chunks) - len(rest)

        def show(read: int) -> None:
            progress.show_finish(before + read, len(chunks))

        known |= _read_whole(rest, listed, plan, out=out, store=store, show=show)
    return tuple(known[part_name(plan, chunk)] for chunk in chunks)


def _say_doubts(summaries: Iterable[Summary], to_read: Collection[str], progress: Progress) -> None:
    doubted = sorted({summary.part.name for summary in summaries}.intersection(to_read))
    if doubted:
        progress.say(
            f"{counted(len(doubted), 'part')} not as left by the writer, read once more: {', '.join(doubted[:SHOWN])}"
        )


def _read_whole(
    chunks: Sequence[Chunk],
    listed: Mapping[str, ObjectInfo],
    plan: Plan,
    *,
    out: str,
    store: Store,
    show: Callable[[int], None],
) -> dict[str, CountedPart]:
    """By name. `show` is told how many of the chunks' parts are read."""
    found: list[Summary] = []

    def read(chunk: Chunk) -> Summary:
        uri = part_uri(out, plan, chunk)
        data, etag = _read(uri, listed.get(part_name(plan, chunk)), store)
        return Summary(_counted(data, chunk, plan, uri=uri), etag)

    def with_etag(summary: Summary) -> Summary | None:
        return summary if summary.etag else None

    show(0)
    with (
        kept(found, with_etag, plan, out=out, store=store),
        closing(in_threads(read, chunks, threads=READ_THREADS)) as reading,
    ):
        for summary in reading:
            found.append(summary)
            show(len(found))
    return {summary.part.name: summary.part for summary in found}


def _read(uri: str, info: ObjectInfo | None, store: Store) -> tuple[bytes, str]:
    """A part, and the etag that its bytes are known to belong to; none if it was replaced since it was listed."""
    if info is not None and info.etag:
        try:
            return store.read(uri, etag=info.etag), info.etag
        except ChangedError:
            pass
    return store.read(uri), ""


def _counted(data: bytes, chunk: Chunk, plan: Plan, *, uri: str) -> CountedPart:
    part = count_part(data, format=plan.settings.format, name=uri)
    planned_rows, of_plan = chunk.stop - chunk.start, part.metadata.get("plan_sha256", "unknown")
    if part.rows != planned_rows or of_plan != plan.sha256:
        raise StorageError(
            f"{uri} holds {part.rows} rows of plan {of_plan[:12]}, expected {planned_rows} of {plan.sha256[:12]}: "
            "something else wrote it; delete it and repeat the command"
        )
    return CountedPart(
        name=part_name(plan, chunk),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=part.rows,
        masks=part.masks,
        failures=failures_of(part.statuses),
    )
