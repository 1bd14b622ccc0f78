"""A proxy in front of the S3 server that harms a share of all requests, each in a way drawn at random."""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import AbstractContextManager

from tests.fault_proxy import Answer, Break, Cut, FaultProxy, Harm, Stall, serving

ANSWERS = (Answer(500, "InternalError"), Answer(503, "SlowDown"), Break.BEFORE, Break.LOST_ANSWER)
HARMS: dict[str, tuple[Harm, ...]] = {
    "GET": (*ANSWERS, Cut(50), Stall(50, seconds=1.0)),
    "HEAD": ANSWERS,
    "PUT": (*ANSWERS, Break.HALF_BODY, Answer(409, "ConditionalRequestConflict")),
}


class Weather(FaultProxy):
    """`share` of the requests are harmed; `injected` counts how."""

    def __init__(self, upstream: str, *, share: float, seed: int) -> None:
        super().__init__(upstream)
        self.requests = 0
        self.injected: Counter[str] = Counter()
        self._share = share
        self._random = random.Random(seed)
        self._dice = threading.Lock()

    def next_harm(self, method: str) -> Harm | None:
        with self._dice:
            self.requests += 1
            if self._random.random() >= self._share:
                return None
            harm = self._random.choice(HARMS[method])
            self.injected[f"{method} {harm}"] += 1
            return harm


def weather(upstream: str, *, share: float, seed: int) -> AbstractContextManager[Weather]:
    return serving(Weather(upstream, share=share, seed=seed))
