"""Where a chunk's time went.

Owns the sums. The stages are named in records.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager

from pipeline.records import Stage


class Stopwatch:
    """Wall seconds per stage; a stage may run in a thread of its own, two threads never share one."""

    def __init__(self) -> None:
        self.seconds: defaultdict[Stage, float] = defaultdict(float)
        self.halved = 0
        """Times that a batch was halved for want of memory."""

    @contextmanager
    def stage(self, name: Stage, *, within: Stage | None = None) -> Generator[None]:
        """Seconds of a stage `within` another are not the other's as well."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            self.seconds[name] += seconds
            if within is not None:
                self.seconds[within] -= seconds
