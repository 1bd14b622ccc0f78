"""What a run or a recount shows while it works: a bar on a terminal, a line every ten seconds elsewhere.

Owns the pace, the wording and the form of the lines. Where they go is the caller's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from pipeline.settings import Log
from pipeline.texts import counted, printable, redacted

SECONDS_BETWEEN_LINES = 10.0
FETCHING_FORMAT = "{desc} |{bar}| {n_fmt} of {total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
COUNTING_FORMAT = "{desc} |{bar}| [{elapsed}<{remaining}]"


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run is, now.

    images_done     those of unfinished chunks included, whoever did them
    counted         images that `masks` and `failed` are of: those of the chunks that this command has finished
    workers_wanted  0 for a recount, which has none and says nothing of them
    """

    images_done: int
    images_total: int
    counted: int
    masks: int
    failed: int
    workers_ready: int
    workers_wanted: int

    @property
    def masks_per_image(self) -> float:
        """Of the images that did not fail."""
        return self.masks / max(1, self.counted - self.failed)


@dataclass(frozen=True, slots=True)
class Pace:
    """Of this command: what others did before it took it no time.

    left_s  None while nothing tells
    """

    images_per_s: float
    left_s: float | None

    @classmethod
    def of(cls, standing: Standing, *, done_at_first: int, seconds: float) -> Pace:
        rate = max(0, standing.images_done - done_at_first) / seconds if seconds > 0 else 0.0
        left = standing.images_total - standing.images_done
        return cls(rate, left / rate if rate else None)

    def __str__(self) -> str:
        left = "" if self.left_s is None else f", {duration(self.left_s)} left"
        return f"{self.images_per_s:.2f} images/s{left}"


class Event(StrEnum):
    """What kind of thing a line tells; a stable name for programs that read the log."""

    NOTE = "note"
    PROGRESS = "progress"
    COUNTING = "counting"
    FETCHING = "fetching"
    CHUNK_FAILED = "chunk_failed"
    SHARD_WAITS = "shard_waits"
    NODE_LOST = "node_lost"
    MACHINE_AVOIDED = "machine_avoided"
    STOPPING = "stopping"
    FAILED = "failed"
    ENDED = "ended"

    @property
    def level(self) -> str:
        if self is Event.FAILED:
            return "error"
        return (
            "info" if self in (Event.NOTE, Event.PROGRESS, Event.COUNTING, Event.FETCHING, Event.ENDED) else "warning"
        )


class Say(Protocol):
    def __call__(self, sentence: str, event: Event = Event.NOTE, *, chunk: str = "", node: str = "") -> None:
        """Something happened. chunk: its id. node: the id or name of the machine."""
        ...


class Progress(Protocol):
    def show(self, standing: Standing) -> None: ...

    def show_finish(self, counted: int, parts: int) -> None:
        """So many of the parts are counted: at the end of a run, or before failed rows are tried once more."""
        ...

    def show_fetch(self, name: str, done: int, size: int) -> None:
        """So many bytes of a file are here."""
        ...

    def say(self, sentence: str, event: Event = Event.NOTE, *, chunk: str = "", node: str = "") -> None: ...

    def close(self) -> None: ...


def progress_on(stream: TextIO, log: Log = Log.TEXT, *, run_id: str = "", doing: str = "counting") -> Progress:
    """doing: what `show_finish` says is done with the parts."""
    if log is Log.JSON:
        return Lines(stream, lambda line: json_line(line, run_id))
    return Bar(stream, doing) if stream.isatty() else Lines(stream, doing=doing)


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of a log."""

    at: datetime
    sentence: str
    event: Event
    chunk: str
    node: str

    @property
    def time(self) -> str:
        """UTC to the millisecond, as ISO 8601 has it."""
        return self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_line(line: Line) -> str:
    return f"{line.time} {printable(line.sentence)}"


def json_line(line: Line, run_id: str) -> str:
    where = {key: value for key, value in (("chunk", line.chunk), ("node", line.node)) if value}
    entry = {"time": line.time, "level": line.event.level, "run": run_id, "event": line.event}
    return json.dumps(entry | where | {"message": redacted(line.sentence)})


class Lines:
    """News at once, and one line of progress at most every ten seconds; a log file stays readable."""

    def __init__(self, stream: TextIO, spell: Callable[[Line], str] = text_line, *, doing: str = "counting") -> None:
        self._stream, self._doing = stream, doing
        self._spell = spell
        self._begun = self._last = time.monotonic()
        self._done_at_first: int | None = None

    def show(self, standing: Standing) -> None:
        if self._done_at_first is None:
            self._done_at_first = standing.images_done
        if self._is_time():
            pace = Pace.of(standing, done_at_first=self._done_at_first, seconds=self._last - self._begun)
            self.say(f"{standing_line(standing)}, {pace}", Event.PROGRESS)

    def show_finish(self, counted: int, parts: int) -> None:
        if self._is_time():
            self.say(finish_line(counted, parts, self._doing), Event.COUNTING)

    def show_fetch(self, name: str, done: int, size: int) -> None:
        if self._is_time():
            self.say(f"fetching {name}: {done / 1e6:,.0f} of {size / 1e6:,.0f} MB", Event.FETCHING)

    def say(self, sentence: str, event: Event = Event.NOTE, *, chunk: str = "", node: str = "") -> None:
        self._stream.write(self._spell(Line(datetime.now(UTC), sentence, event, chunk, node)) + "\n")
        self._stream.flush()

    def close(self) -> None:
        return

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return False
        self._last = now
        return True


class Bar:
    """tqdm on a terminal."""

    def __init__(self, stream: TextIO, doing: str = "counting") -> None:
        self._stream, self._doing = stream, doing
        self._bar: tqdm[Any] | None = None

    def show(self, standing: Standing) -> None:
        bar = self._bar_of("img", done=standing.images_done, total=standing.images_total)
        masks = [f"{standing.masks_per_image:.0f} masks/img"] if standing.counted else []
        failed = [f"{standing.failed} failed"] if standing.failed else []
        workers = [f"{standing.workers_ready}/{standing.workers_wanted} workers"] if standing.workers_wanted else []
        bar.set_postfix_str(", ".join(masks + failed + workers), refresh=False)
        bar.refresh()

    def show_finish(self, counted: int, parts: int) -> None:
        bar = self._bar_of("part", done=counted, total=parts, bar_format=COUNTING_FORMAT)
        bar.set_description_str(finish_line(counted, parts, self._doing), refresh=False)
        bar.refresh()

    def show_fetch(self, name: str, done: int, size: int) -> None:
        bar = self._bar_of("B", done=done, total=size, bar_format=FETCHING_FORMAT)
        bar.set_description_str(name, refresh=False)
        bar.update(0)

    def say(self, sentence: str, event: Event = Event.NOTE, *, chunk: str = "", node: str = "") -> None:
        tqdm.write(printable(sentence), file=self._stream)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _bar_of(self, unit: str, *, done: int, total: int, bar_format: str | None = None) -> tqdm[Any]:
        """The bar that counts these things, in the place of one that counts others."""
        if self._bar is None or self._bar.unit != unit:
            self.close()
            self._bar = tqdm(
                total=total,
                initial=done,
                unit=unit,
                unit_scale=unit == "B",
                file=self._stream,
                leave=False,
                bar_format=bar_format,
            )
        self._bar.n = done
        return self._bar


def duration(seconds: float) -> str:
    """As people say it, with two units at most."""
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((number for number, (count, _) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2] if count) or "0 s"


def finish_line(done: int, parts: int, doing: str) -> str:
    return f"{doing}: {done:,} of {counted(parts, 'part')}"


def standing_line(standing: Standing) -> str:
    share = standing.images_done / standing.images_total if standing.images_total else 1.0
    failed = f", {standing.failed} failed" if standing.failed else ""
    # Masks are those of finished chunks: before the first one nobody knows any.
    masks = f", {standing.masks} masks ({standing.masks_per_image:.1f} per image)" if standing.counted else ""
    wanted = standing.workers_wanted
    workers = f", {standing.workers_ready} of {counted(wanted, 'worker')} ready" if wanted else ""
    return f"{standing.images_done}/{standing.images_total} images ({share:.0%}){failed}{masks}{workers}"
