"""What a pretended CUDA device was asked: a log of its launches, and of each time that the host waits for it.

Copies to pinned memory arrive when somebody waits for an event that was recorded after them; until then there is
garbage, so that whoever reads too early is found out. Everything else has its result at once.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter


class Wait(StrEnum):
    """Why the host waits."""

    VALUE = "a value or a size is asked for"
    SELECTION = "a selection by a mask"
    COPY_OUT = "a copy to memory that is not pinned"
    COPY_IN = "a copy from memory that is not pinned"
    SYNCHRONIZE = "synchronize"
    EVENT_IDLE = "an event, and nothing is queued behind it"
    EVENT = "an event, with work queued behind it"


@dataclass
class Log:
    """What the pretended device was asked since the log was made.

    waits     (why, the operator, the line of ours that asks) -> how often
    launches  line of ours -> kernels
    sent      type of numbers -> bytes that came from the host
    """

    waits: Counter[tuple[Wait, str, str]] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)
    sent: Counter[torch.dtype] = field(default_factory=Counter)

    def of(self, *kinds: Wait) -> int:
        """How many waits of these kinds."""
        return sum(times for (kind, _, _), times in self.waits.items() if kind in kinds)

    def __str__(self) -> str:
        rows = [f"{times:5d}  {why}, {name}, {line}" for (why, name, line), times in self.waits.most_common()]
        return "\n".join([f"{self.waits.total()} waits, {self.launches.total()} launches", *rows])


class Recording:
    """What a CUDA graph holds: kernels with the addresses that they were captured with.

    A capture computes nothing, so that everything made in it is garbage until the first replay.
    """

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.made: list[Tensor] = []

    def has(self, given: Any, result: Any) -> list[Tensor]:
        """What is new in a result."""
        known = {id(each) for each in tree_iter(given) if isinstance(each, Tensor)}
        made = [each for each in tree_iter(result) if isinstance(each, Tensor) and id(each) not in known]
        self.made += made
        return made

    def add(self, call: Callable[[], Any], given: Any, result: Any) -> None:
        """A kernel that was given these tensors and gave that result, which its every replay writes again."""
        made = self.has(given, result)

        def again() -> None:
            again_made = [each for each in tree_iter(call()) if isinstance(each, Tensor)]
            for old, new in zip(made, again_made, strict=False):
                old.copy_(new)

        self.calls.append(again)

    def forget(self) -> None:
        for each in self.made:
            each.fill_(torch.nan if each.is_floating_point() else 1)


class Graph:
    """In place of torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.recording = Recording()

    def replay(self) -> None:
        STATE.launch()
        for call in self.recording.calls:
            call()


@contextmanager
def capture(graph: Graph, **_options: Any) -> Iterator[None]:
    """In place of torch.cuda.graph."""
    STATE.recording = graph.recording
    try:
        yield
    finally:
        STATE.recording = None
    graph.recording.forget()


class Stream:
    """In place of torch.cuda.Stream."""

    def wait_stream(self, _other: Stream) -> None:
        pass


class State:
    """The one device: how much was queued, how much the host knows to be done, what has not arrived yet."""

    def __init__(self) -> None:
        self.log = Log()
        self.queued = self.done = 0
        self.arriving: list[tuple[int, Tensor, Tensor]] = []
        self.pinned: dict[int, Tensor] = {}
        """By address, and kept alive, so that an address names one tensor."""
        self.recording: Recording | None = None

    def launch(self) -> None:
        if self.recording is not None:
            return
        self.queued += 1
        self.log.launches[our_line()] += 1

    def wait(self, kind: Wait, name: str) -> None:
        self.log.waits[kind, name, our_line()] += 1
        self.finish(self.queued)

    def finish(self, place: int) -> None:
        self.done = max(self.done, place)
        for _, target, source in [each for each in self.arriving if each[0] <= self.done]:
            target.copy_(source)
        self.arriving = [each for each in self.arriving if each[0] > self.done]

    def arrive_later(self, target: Tensor, source: Tensor) -> None:
        self.queued += 1
        self.arriving.append((self.queued, target, source.clone()))

    def pin(self, tensor: Tensor) -> Tensor:
        self.pinned[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.pinned


STATE = State()


class Event:
    """In place of torch.cuda.Event."""

    def __init__(self, **_options: Any) -> None:
        self._place = 0

    def record(self, _stream: Any = None) -> None:
        self._place = STATE.queued

    def query(self) -> bool:
        return self._place <= STATE.done

    def synchronize(self) -> None:
        if not self.query():
            kind = Wait.EVENT if STATE.queued > self._place else Wait.EVENT_IDLE
            STATE.log.waits[kind, "Event.synchronize", our_line()] += 1
            STATE.finish(self._place)

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds; on a real device an error before both have passed."""
        assert self.query()
        assert end.query(), "asked for the time of work that may not be done"
        return float(end._place - self._place)


def our_line() -> str:
    """The innermost line of our code on the stack."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        for room in ("/model/", "/pipeline/"):
            if room in path and "site-packages" not in path:
                return f"{room[1:]}{path.rpartition(room)[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "a test"
