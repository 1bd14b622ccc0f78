"""What a store does when several writers create the same object: the one promise that commits stand on, tried out.

Owns the trial and its objects, which it removes. What follows from the result is preflight.py's.
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
"""At once, per round. A store known to race let several of so many win in 22 of 25 rounds; one in 1 of 25."""


class Creation(StrEnum):
    """How a store treats a second creation of an object."""

    EXCLUSIVE = "exclusive"
    """The first writer wins. All that a trial can say: it has not seen the others."""
    OVERWRITES = "overwrites"
    """The condition is ignored: the last writer wins."""
    RACES = "races"
    """Writers at the same moment can all be told that they won."""


def try_creation(folder: str, store: Store, *, rounds: int = ROUNDS) -> Creation:
    """Create objects below `folder` as competing workers would, one after the other and at once.

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
            with suppress(StorageError):  # not everybody who may write may delete
                store.delete(name)


def _winners(name: str, store: Store, pool: ThreadPoolExecutor) -> int:
    gate = threading.Barrier(WRITERS)

    def create(writer: int) -> bool:
        gate.wait()
        return store.put_if_absent(name, b"%d" % writer) is not None

    return sum(pool.map(create, range(WRITERS)))
