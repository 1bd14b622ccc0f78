"""The only place that retries: with random pauses (full jitter) up to a limit, until a deadline.

Owns the waiting. The caller decides what is worth another try, by raising `Transient`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import StorageError

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 20.0
FIRST_CONTACT_S = 30.0
"""Seconds to retry while a store has never answered in this process, so that a wrong address is reported soon."""


class Transient(Exception):
    """A failure that may pass. `unreachable` is True if not even an answer came."""

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unreachable = unreachable


@dataclass
class Patience:
    """How long requests to one store are retried. Remembers whether the store has ever answered."""

    deadline_s: float
    was_reached: bool = False

    def insist(self, what: str, act: Callable[[], T]) -> T:
        """Call `act` until it does not raise Transient, and return its result.

        raises  StorageError if the next pause would end after the deadline; everything else that `act` raises, at once
        """
        begun = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                result = act()
            except Transient as failure:
                self.was_reached = self.was_reached or not failure.unreachable
                pause = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries, 30)))
                patience = self.deadline_s if self.was_reached else min(self.deadline_s, FIRST_CONTACT_S)
                spent = time.monotonic() - begun
                if spent + pause > patience:
                    raise StorageError(f"{what}: {failure.reason} ({tries} tries in {spent:.0f} s)") from failure
            else:
                self.was_reached = True
                return result
            time.sleep(pause)
