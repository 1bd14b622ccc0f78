"""How far a run is, for programs that look now and then: OUT/_job/progress.json, written anew every few seconds.

Owns the fields and the pace. The file is one small object that is replaced as a whole, so a reader never sees half of
it. It is for looking at: no run reads it, and a store that refuses it costs nobody anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import MaskmillError, NotFoundError, exit_code_of
from pipeline.output.threads import now_and_then
from pipeline.plan.layout import progress_uri
from pipeline.progress import Event, Pace, Progress, Standing
from pipeline.run.run_report import RunRecord
from pipeline.storage.store import Store

EVERY_S = 5.0
FAREWELL_S = 5.0
"""For the last one; a process that was told to stop has no time for a slow store."""


@contextmanager
def progress_file(
    progress: Progress, record: RunRecord, *, out: str, store: Store, every_s: float = EVERY_S
) -> Generator[Progress]:
    """Yields what is to be told; all of it also reaches `progress`. It is written beside the work and delays nobody."""
    told = _Told(progress)
    file = _File(told, record, progress_uri(out), store)
    with now_and_then(file.write, every_s=lambda: every_s, farewell_s=FAREWELL_S):
        try:
            yield told
        except BaseException as error:
            file.exit_code = exit_code_of(error)
            raise
        file.exit_code = record.outcome.exit_code if record.outcome is not None else None


class _Told:
    """A Progress that keeps the latest standing and passes everything on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.begun = time.monotonic()
        self.done_at_first = 0
        self.standing: Standing | None = None

    def show(self, standing: Standing) -> None:
        if self.standing is None:
            self.begun, self.done_at_first = time.monotonic(), standing.images_done
        self.standing = standing
        self._progress.show(standing)

    def show_finish(self, counted: int, parts: int) -> None:
        self._progress.show_finish(counted, parts)

    def show_fetch(self, name: str, done: int, size: int) -> None:
        self._progress.show_fetch(name, done, size)

    def say(self, sentence: str, event: Event = Event.NOTE, *, chunk: str = "", node: str = "") -> None:
        self._progress.say(sentence, event, chunk=chunk, node=node)

    def close(self) -> None:
        self._progress.close()


class _File:
    def __init__(self, told: _Told, record: RunRecord, uri: str, store: Store) -> None:
        self._told, self._record, self._uri, self._store = told, record, uri, store
        self._etag = ""
        self.exit_code: int | None = None

    def write(self) -> None:
        data = json.dumps(self._fields(), indent=1).encode() + b"\n"
        with suppress(MaskmillError):  # the next one may come through
            self._etag = self._put(data)

    def _put(self, data: bytes) -> str:
        """The etag of what is there now. Another driver of this run may have written since: the last one is shown."""
        if self._etag:
            written = self._store.replace(self._uri, data, etag=self._etag)
            if written is not None:
                return written.etag
        try:
            there = self._store.head(self._uri)
        except NotFoundError:
            written = self._store.put_if_absent(self._uri, data)
        else:
            written = self._store.replace(self._uri, data, etag=there.etag)
        return "" if written is None else written.etag

    def _fields(self) -> dict[str, Any]:
        told, ledger = self._told, self._record.ledger
        standing = told.standing
        fields: dict[str, Any] = {
            "run": self._record.run_id,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "exit_code": self.exit_code,
            "chunks": {
                "planned": self._record.plan.chunk_count,
                "committed": len(ledger.committed) if ledger is not None else None,
                "given_up": len(ledger.given_up) if ledger is not None else 0,
            },
        }
        if standing is not None:
            pace = Pace.of(standing, done_at_first=told.done_at_first, seconds=time.monotonic() - told.begun)
            fields |= {
                "images": {"planned": standing.images_total, "done": standing.images_done},
                "this_command": {
                    "images": standing.counted,
                    "failed": standing.failed,
                    "masks": standing.masks,
                    "masks_per_image": round(standing.masks_per_image, 2),
                    "images_per_s": round(pace.images_per_s, 3),
                },
                "seconds_left": None if pace.left_s is None else round(pace.left_s),
                "workers": {"ready": standing.workers_ready, "wanted": standing.workers_wanted},
            }
        return fields
