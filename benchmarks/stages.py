"""Where our own CPU time goes: wrappers around the product's public seams, put on from outside for one run.

Every function of pipeline.masks belongs to a stage by the module that defines it; `Segmenter.encode` and `decode` are
the stages of the model. A stage's time is its own: what it calls in another stage is that one's.
"""

from __future__ import annotations

import functools
import sys
import time
import types
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from benchmarks.peers import Image_HW3
from pipeline.settings import Recipe

ENCODE, PROMPTS, POST, CLEAN = STAGES = ("encode", "prompts", "post-processing", "clean-up and RLE")
"""resize and image encoder; prompt encoder and mask decoder; everything between logits and masks; and what is done to
binary masks and run lengths."""

_CLEAN_MODULES = ("pipeline.masks.clean", "pipeline.masks.rle", "pipeline.masks.merge", "pipeline.masks.runs")
_ROOM = "pipeline.masks"


class _Clock:
    """CPU seconds of the process, each to the innermost stage that is open."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = time.process_time()

    def _switch(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._open.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._open.pop()

        return wrapper


def staged(generator: Any, image_HW3: Image_HW3, recipe: Recipe) -> tuple[dict[str, float], dict[str, int]]:
    """CPU seconds of each stage of one run of ours, and its funnel."""
    clock = _Clock()
    with _wrapped(generator.segmenter, clock):
        [result] = clock.timed(POST, generator.generate)(image_HW3, recipe)
    return {stage: clock.seconds[stage] for stage in STAGES}, asdict(result.funnel)


@contextmanager
def _wrapped(segmenter: Any, clock: _Clock) -> Generator[None]:
    """Wrappers on the segmenter's two methods and on every function of the generator, wherever its name is bound."""
    undo: list[tuple[Any, str, Any]] = []
    wrappers: dict[Any, Any] = {}
    for module in [module for name, module in sys.modules.items() if name.startswith(_ROOM)]:
        for name, value in list(vars(module).items()):
            if isinstance(value, types.FunctionType) and value.__module__.startswith(_ROOM):
                stage = CLEAN if value.__module__ in _CLEAN_MODULES else POST
                undo.append((module, name, value))
                setattr(module, name, wrappers.setdefault(value, clock.timed(stage, value)))
    for name, stage in (("encode", ENCODE), ("decode", PROMPTS)):
        setattr(segmenter, name, clock.timed(stage, getattr(segmenter, name)))
    try:
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)
        del segmenter.encode, segmenter.decode
