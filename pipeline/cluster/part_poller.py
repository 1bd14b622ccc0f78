"""Listing data/ now and then in a thread, so that the driver's loop never waits for the store.

Owns the pace, and what a listing that fails means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from pipeline.errors import StorageError

POLL_S = 5.0
"""Seconds between two looks, or ten times what a look takes."""


class PartPoller:
    """look  ids of the chunks whose part is in the store now; called in a thread, one call at a time"""

    def __init__(self, look: Callable[[], set[str]]) -> None:
        self._look = look
        self._looking: Future[set[str]] | None = None
        self._begun = 0.0
        self._next = 0.0

    def news(self) -> set[str]:
        """What a look that has ended saw, else nothing. Begins the next look when it is time. Returns at once.

        A look that fails with StorageError saw nothing; workers say what is wrong with the store, with their retries.
        """
        seen: set[str] = set()
        now = time.monotonic()
        if self._looking is not None and self._looking.done():
            self._next = now + max(POLL_S, 10 * (now - self._begun))
            ended, self._looking = self._looking, None
            with suppress(StorageError):
                seen = ended.result()
        if self._looking is None and now >= self._next:
            self._begun = now
            self._looking = Future()
            # Daemon: a look that hangs must not keep a process alive that was told to stop.
            threading.Thread(target=_fulfil, args=(self._looking, self._look), name="part poller", daemon=True).start()
        return seen


def _fulfil(future: Future[set[str]], look: Callable[[], set[str]]) -> None:
    try:
        future.set_result(look())
    except BaseException as error:  # noqa: BLE001  # handed to the loop, whole
        future.set_exception(error)
