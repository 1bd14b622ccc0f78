"""What one chunk took: the wall seconds of each stage, and how often a batch was halved for want of memory."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager

from pipeline.records import Stage


class Stopwatch:
    """Wall seconds per stage, without a lock: all of one stage must be timed in the same thread."""

    def __init__(self) -> None:
        self.seconds: defaultdict[Stage, float] = defaultdict(float)
        self.halved = 0
        """Times that a batch was halved for want of memory."""

    @contextmanager
    def stage(self, name: Stage, *, within: Stage | None = None) -> Generator[None]:
        """Time a block. If it runs `within` another stage, its seconds are not counted to that one as well."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            self.seconds[name] += seconds
            if within is not None:
                self.seconds[within] -= seconds

    def move(self, seconds: float, *, source: Stage, target: Stage) -> None:
        """Count some seconds of one stage to another; never more than that one has."""
        moved = min(seconds, self.seconds[source])
        self.seconds[source] -= moved
        self.seconds[target] += moved
