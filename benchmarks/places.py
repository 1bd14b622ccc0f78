"""Where threads spend their time, whether they work or wait: by looking at their stacks now and then.

A thread that holds Python's lock is seen at the moment at which it gives the lock up.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from typing import Any

from benchmarks.machine import ROOT

LOOKS_EVERY_S = 0.005
ROOMS = tuple(f"{ROOT}/{room}/" for room in ("pipeline", "model"))


class Places(threading.Thread):
    """Looks every few milliseconds where the threads of some kinds are.

    kinds  how the threads' names begin
    seen   (kind, line of ours) -> how often a thread was there
    """

    def __init__(self, *kinds: str) -> None:
        super().__init__(name="places", daemon=True)
        self._kinds = kinds
        self.seen: Counter[tuple[str, str]] = Counter()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(LOOKS_EVERY_S):
            frames = sys._current_frames()  # type: ignore[reportPrivateUsage]
            for thread in threading.enumerate():
                kind = next((kind for kind in self._kinds if thread.name.startswith(kind)), None)
                frame = frames.get(thread.ident or 0)
                if kind is not None and frame is not None:
                    self.seen[kind, _our_line(frame)] += 1

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


def _our_line(frame: Any) -> str:
    """The innermost line of the package on a thread's stack, and its function."""
    while frame is not None:
        path: str = frame.f_code.co_filename
        if path.startswith(ROOMS):
            return f"{path.removeprefix(f'{ROOT}/')}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "none of ours"
