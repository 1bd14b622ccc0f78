"""SIGTERM and SIGINT: outside the driver's loop they interrupt, inside it they are a flag.

Owns the handlers. What stopping means is the driver's.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Counts the signals that came. A second one ends the grace time.

    An interrupt may be swallowed (Python ignores exceptions in some callbacks); the count is not, and the loop finds
    it when it begins.
    """

    def __init__(self) -> None:
        self.signals = 0
        self._interrupts = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.signals += 1
        if self._interrupts:
            raise KeyboardInterrupt

    @contextmanager
    def interrupting(self) -> Generator[None]:
        """Signals raise KeyboardInterrupt: nothing is in flight that would need a grace time."""
        with self._installed(interrupts=True):
            yield

    @contextmanager
    def flagging(self) -> Generator[None]:
        """Signals are counted and nothing else: Ray's own shutdown inside a handler aborts the process."""
        with self._installed(interrupts=False):
            yield

    @contextmanager
    def _installed(self, *, interrupts: bool) -> Generator[None]:
        mode, self._interrupts = self._interrupts, interrupts
        before = {number: signal.signal(number, self) for number in SIGNALS}
        try:
            yield
        finally:
            self._interrupts = mode
            for number, handler in before.items():
                signal.signal(number, handler)
