"""A trial of a store: what happens when several writers create the same object? Commits depend on the answer.

Owns the trial and its objects, which it removes. preflight.py decides what follows from the result.
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum

from pipeline.errors import StorageError
from pipeline.storage.store import Store

ROUNDS = 5
WRITERS = 16
"""Writers at once in a round. Of two stores known to race, one let several of 16 writers win in 22 of 25 rounds, the
other in 1 of 25."""


class Creation(StrEnum):
    """What a store does when an object is created a second time."""

    EXCLUSIVE = "exclusive"
    """The first writer wins. A trial can say only that it saw no other behaviour."""
    OVERWRITES = "overwrites"
    """The store ignores the condition, and the last writer wins."""
    RACES = "races"
    """The store can tell several writers at the same moment that they won."""


def try_creation(folder: str, store: Store, *, rounds: int = ROUNDS) -> Creation:
    """Create objects below `folder` as competing workers would: first one after the other, then at once.

    raises  NotFoundError, DeniedError if nothing can be written there; ConfigError if the store knows no conditions;
            StorageError
    """
    names = [f"{folder}/probe-{uuid.uuid4().hex}" for _ in range(1 + rounds)]
    try:
        first, second = (store.put_if_absent(names[0], data) for data in (b"first", b"second"))
        if first is None or second is not None:
            return Creation.OVERWRITES
        with ThreadPoolExecutor(WRITERS) as pool:
            is_exclusive = all(_winners(name, store, pool) == 1 for name in names[1:])
        return Creation.EXCLUSIVE if is_exclusive else Creation.RACES
    finally:
        for name in names:
            with suppress(StorageError):  # some credentials may write and not delete
                store.delete(name)


def _winners(name: str, store: Store, pool: ThreadPoolExecutor) -> int:
    gate = threading.Barrier(WRITERS)

    def create(writer: int) -> bool:
        gate.wait()
        return store.put_if_absent(name, b"%d" % writer) is not None

    return sum(pool.map(create, range(WRITERS)))
