"""SIGTERM and SIGINT as a flag that the loop looks at.

Owns the handlers while the loop runs. What stopping means is the driver's.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Set by SIGTERM and SIGINT. A second signal ends the grace time."""

    def __init__(self) -> None:
        self.signals = 0

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        # Nothing but a flag: Ray's own shutdown inside a handler aborts the process.
        self.signals += 1


@contextmanager
def stop_on_signals() -> Generator[StopFlag]:
    """Use inside `ray_session`: ray.init replaces the SIGTERM handler."""
    flag = StopFlag()
    before = {number: signal.signal(number, flag) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
