"""The same work on many things at once, or now and then beside other work, in threads that nobody has to wait for.

Owns the threads. Those of concurrent.futures would be joined when the process ends, and one that waits for a store that
does not answer would keep a process alive that was told to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

NOTICED_S = 0.2
"""A signal that comes while Python is about to wait does not end the wait: its handler is called after so long."""


def in_threads(act: Callable[[T], R], items: Sequence[T], *, threads: int) -> Generator[R]:
    """What `act` returns of each item, in the order in which the answers come.

    The first exception is raised here. Leaving the loop early (and closing the generator) begins nothing more.
    """
    done: SimpleQueue[Future[R]] = SimpleQueue()
    stopped = threading.Event()
    todo, lock = iter(items), threading.Lock()

    def work() -> None:
        while not stopped.is_set():
            with lock:
                item = next(todo, None)
            if item is None:
                return
            done.put(_outcome(act, item))

    for _ in range(min(threads, len(items))):
        threading.Thread(target=work, name="in threads", daemon=True).start()
    try:
        for _ in items:
            yield _next_of(done).result()
    finally:
        stopped.set()


def _next_of(done: SimpleQueue[Future[R]]) -> Future[R]:
    while True:
        try:
            return done.get(timeout=NOTICED_S)
        except Empty:
            continue


@contextmanager
def now_and_then(act: Callable[[], object], *, every_s: Callable[[], float], farewell_s: float) -> Generator[None]:
    """Meanwhile `act` is called beside the work, after each `every_s()` seconds, and once more at the end, for which
    nobody waits longer than `farewell_s`."""
    ending = threading.Event()

    def work() -> None:
        while not ending.wait(every_s()):
            act()
        act()

    thread = threading.Thread(target=work, name="now and then", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(farewell_s)


def _outcome(act: Callable[[T], R], item: T) -> Future[R]:
    future: Future[R] = Future()
    try:
        future.set_result(act(item))
    except BaseException as error:  # noqa: BLE001  # raised to the reader, whole
        future.set_exception(error)
    return future
