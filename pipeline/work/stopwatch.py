"""Where a chunk's time went.

Owns the names of the stages, in the order in which an image meets them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager

STAGES = ("read", "decode", "compute", "rle", "write")
"""read: bytes from the store. decode: to pixels. compute: on the device. rle: from predictions to run lengths, on the
CPU. write: the part made and uploaded."""


class Stopwatch:
    """Wall seconds per stage; a stage may run in a thread of its own, two threads never share one."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.halved = 0
        """Times that a batch was halved for want of memory."""

    @contextmanager
    def stage(self, name: str, *, within: str | None = None) -> Generator[None]:
        """Seconds of a stage `within` another are not the other's as well."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            self.seconds[name] += seconds
            if within is not None:
                self.seconds[within] -= seconds
