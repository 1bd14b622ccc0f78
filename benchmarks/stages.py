"""Where time goes: clocks put on from outside, around a model's encoder and decoder and our own functions.

A stage's time is its own: what it calls in another stage is that one's. On a CPU every measured run of every peer has
clocks on the few calls of its encoder and decoder. On a GPU a clock must wait for the device, so that measured runs
have none and each peer has one more. In such a further run of ours every function of pipeline.masks is clocked too,
each in the stage of the module that defines it.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.peers import DECODE, ENCODE, Image_HW3, Seam
from pipeline.settings import Recipe

REST = "rest"
POST, CLEAN = "post-processing", "clean-up and RLE"
STAGES = (ENCODE, DECODE, POST, CLEAN)
"""Resize and image encoder; prompt encoder and mask decoder; what lies between logits and the masks that stay; what is
done to binary masks and run lengths. REST is the last two together."""

_ROOM = "pipeline.masks"
_CLEAN_MODULES = tuple(f"{_ROOM}.{module}" for module in ("clean", "rle", "trace", "merge"))


class Clock:
    """Seconds of `now`, each to the innermost stage that is open."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its own time counted to `stage`."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self._count()
            self._open.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self._count()
                self._open.pop()

        return wrapper

    def _count(self) -> None:
        now = self._now()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def clocked(clock: Clock, seams: Sequence[Seam]) -> Generator[None]:
    """The seams' methods are timed inside the block."""
    undo: list[tuple[Any, str, Any]] = [(owner, method, owner.__dict__.get(method)) for owner, method, _ in seams]
    for owner, method, stage in seams:
        setattr(owner, method, clock.timed(stage, getattr(owner, method)))
    try:
        yield
    finally:
        for owner, method, own in undo:
            delattr(owner, method)
            if own is not None:  # an object's own, as a compiled module has it
                setattr(owner, method, own)


def staged(
    generator: Any, image_HW3: Image_HW3, recipe: Recipe, now: Callable[[], float]
) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of each of STAGES in one run, and its funnel. Of others than ours all the rest is post-processing."""
    clock = Clock(now)
    with clocked(clock, generator.seams()), _functions_clocked(clock):
        answer = clock.timed(POST, generator.generate)(image_HW3, recipe)
    return {stage: clock.seconds[stage] for stage in STAGES}, generator.funnel(answer)


@contextmanager
def _functions_clocked(clock: Clock) -> Generator[None]:
    """Every Python function of our generator, wherever its name is bound, and every method."""
    undo: list[tuple[Any, str, Any]] = []
    wrappers: dict[Any, Any] = {}
    for owner, name, function in _functions():
        stage = CLEAN if function.__module__ in _CLEAN_MODULES else POST
        undo.append((owner, name, function))
        setattr(owner, name, wrappers.setdefault(function, clock.timed(stage, function)))
    try:
        yield
    finally:
        for owner, name, function in undo:
            setattr(owner, name, function)


def _functions() -> list[tuple[Any, str, types.FunctionType]]:
    """(module or class, name, function) of the room, in a list because binding them anew changes what is walked."""
    modules = [module for name, module in sys.modules.items() if name.startswith(_ROOM)]
    classes = {value for module in modules for value in vars(module).values() if _is_own(value, type)}
    return [
        (owner, name, value)
        for owner in [*modules, *classes]
        for name, value in vars(owner).items()
        if _is_own(value, types.FunctionType) and not name.startswith("__")
    ]


def _is_own(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and value.__module__.startswith(_ROOM)
