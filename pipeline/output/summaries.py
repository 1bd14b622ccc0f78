"""Summaries: what is known of parts without reading them, kept beside them for whoever finishes the run.

A part is known to its writer. The worker's report has its size, checksum and counts, and the etag that the store gave
to the object that this very write created. A report lives as long as its driver, so each driver writes them down now
and then, in objects below OUT/_job/summaries that nobody ever replaces.

They are a cache and nothing else. The part is the only commit; no summary says that a part is there. A summary is
believed if a listing shows the object that it was written of (`borne_out`). One that is lost, damaged or out of date
costs the reading of a part.

Owns the objects, their pace and the rule of belief. Does not read parts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from pipeline.errors import ConfigError, NotFoundError, StorageError
from pipeline.output.manifest import CountedPart
from pipeline.output.threads import in_threads, now_and_then
from pipeline.plan.layout import PART_SUFFIX, part_name, summaries_uri, summary_uri
from pipeline.plan.plan import Plan, canonical_json
from pipeline.records import ChunkReport, Status
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import absolute

SUMMARIES_VERSION = 1
EVERY_S = 30.0
OF_AGE = 0.01
"""Summaries are written every 30 s, or after a hundredth of the time since their driver began. So a killed driver
leaves unsaid at most what it did in its last 30 s or 1 %, and ten days of work make some 700 objects."""
FAREWELL_S = 5.0
"""For what is left at the end; a process that was told to stop has no time for a slow store."""
READ_THREADS = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Summary:
    """A part, and the etag of the object that this was found out of. Never without an etag."""

    part: CountedPart
    etag: str


def summary_of(report: ChunkReport, plan: Plan) -> Summary | None:
    """None if the report is not of the object that was created, or the store gave that no etag."""
    if not report.won or not report.etag:
        return None
    part = CountedPart(
        name=report.chunk_id + PART_SUFFIX[plan.settings.format],
        size=report.bytes_written,
        sha256=report.sha256,
        rows=sum(report.images.values()),
        masks=report.masks,
        failures=failures_of(report.images),
    )
    return Summary(part, report.etag)


def failures_of(statuses: Mapping[str, int]) -> dict[str, int]:
    """The counts of the rows that are not ok, in the order of their words."""
    return {status: count for status, count in sorted(statuses.items()) if status != Status.OK}


def borne_out(summaries: Iterable[Summary], listed: Mapping[str, ObjectInfo], plan: Plan) -> dict[str, CountedPart]:
    """The parts of those summaries whose object is the one that the listing shows, by name.

    It is if size and etag are. On object stores an etag is made by the store of the content (most take its MD5), or
    anew for each write; on disk it is the modification time and the size. Two summaries of one object that disagree
    are both left out, and so is one whose rows are not those of its chunk.
    """
    rows = {part_name(plan, chunk): chunk.stop - chunk.start for chunk in plan.chunks()}
    found: dict[str, CountedPart | None] = {}
    for summary in summaries:
        part, info = summary.part, listed.get(summary.part.name)
        if info is None or (info.size, info.etag) != (part.size, summary.etag) or rows.get(part.name) != part.rows:
            continue
        found[part.name] = part if found.get(part.name, part) == part else None
    return {name: part for name, part in found.items() if part is not None}


def read_summaries(plan: Plan, *, out: str, store: Store) -> list[Summary]:
    """All that drivers of this plan have written. What cannot be read, or is damaged, is left out."""

    def read(uri: str) -> list[Summary]:
        try:
            return _from_json(store.read(uri), uri, plan)
        except (StorageError, ValueError, KeyError, TypeError, AttributeError):
            return []

    try:
        uris = [info.uri for info in store.list(absolute(summaries_uri(out)))]
    except NotFoundError:
        return []
    return [summary for several in in_threads(read, uris, threads=READ_THREADS) for summary in several]


@contextmanager
def kept(
    growing: Sequence[T],
    to_summary: Callable[[T], Summary | None],
    plan: Plan,
    *,
    out: str,
    store: Store,
    every_s: float = EVERY_S,
) -> Generator[None]:
    """Meanwhile, `growing` may grow at its end, and what is new in it is written now and then, and at the end.

    A store that refuses is asked again at the next time; it delays nobody.
    """
    begun = time.monotonic()
    keeper = _Keeper(growing, to_summary, plan, out, store)

    def pause_s() -> float:
        return max(every_s, OF_AGE * (time.monotonic() - begun))

    with now_and_then(keeper.write, every_s=pause_s, farewell_s=FAREWELL_S):
        yield


class _Keeper(Generic[T]):
    def __init__(
        self, growing: Sequence[T], to_summary: Callable[[T], Summary | None], plan: Plan, out: str, store: Store
    ) -> None:
        self._growing, self._to_summary = growing, to_summary
        self._plan, self._out, self._store = plan, out, store
        self._written = 0
        """So many at the beginning of `growing`."""

    def write(self) -> None:
        end = len(self._growing)
        known = map(self._to_summary, self._growing[self._written : end])
        new = [summary for summary in known if summary is not None]
        if new:
            data = _to_json(new, self._plan)
            uri = summary_uri(self._out, hashlib.sha256(data).hexdigest())
            try:
                self._store.put_if_absent(uri, data)
            except (StorageError, ConfigError):
                return
        self._written = end


def _to_json(summaries: Sequence[Summary], plan: Plan) -> bytes:
    parts = [asdict(summary.part) | {"etag": summary.etag} for summary in summaries]
    document = {"schema_version": SUMMARIES_VERSION, "plan_sha256": plan.sha256, "parts": parts}
    return canonical_json(document) + b"\n"


def _from_json(data: bytes, uri: str, plan: Plan) -> list[Summary]:
    """Empty if they are of another plan or version.

    raises  ValueError, KeyError, TypeError, AttributeError if these are not what was written under this name
    """
    if summary_uri("", hashlib.sha256(data).hexdigest()).rpartition("/")[2] != uri.rpartition("/")[2]:
        raise ValueError(f"{uri} does not hold what its name says")
    document: dict[str, Any] = json.loads(data)
    if (document["schema_version"], document["plan_sha256"]) != (SUMMARIES_VERSION, plan.sha256):
        return []
    return [Summary(etag=entry.pop("etag"), part=CountedPart(**entry)) for entry in document["parts"]]
