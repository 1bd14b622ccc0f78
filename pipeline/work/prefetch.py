"""Overlap by wrapping an iterator: a daemon thread makes the items ahead of need.

Owns the thread and the bounded queue. Does not know what the items are.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Done:
    error: BaseException | None


def prefetch(items: Iterable[T], *, depth: int) -> Generator[T]:
    """The same items in the same order, with up to `depth` of them made ahead of need.

    An exception of the source is raised here, after the items before it. Leaving the loop early (and closing the
    generator) stops the thread after the item it is making.
    """
    ready: queue.Queue[T | _Done] = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    # Daemon: a thread that is not keeps a finished worker process (and its GPU) alive.
    threading.Thread(target=_fill, args=(ready, items, stopped), name="prefetch", daemon=True).start()
    try:
        while True:
            entry = ready.get()
            if isinstance(entry, _Done):
                if entry.error is not None:
                    raise entry.error
                return
            yield entry
    finally:
        stopped.set()


def _fill(ready: queue.Queue[T | _Done], items: Iterable[T], stopped: threading.Event) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            _offer(ready, item, stopped)
            if stopped.is_set():
                return
    except BaseException as caught:  # noqa: BLE001  # handed to the reader, whole
        error = caught
    _offer(ready, _Done(error), stopped)


def _offer(ready: queue.Queue[T | _Done], entry: T | _Done, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            return ready.put(entry, timeout=0.1)
        except queue.Full:
            continue
