"""A function of tensors as a CUDA graph: one launch instead of some hundred, for shapes that never change.

The host is asked for one launch where it would queue hundreds, at some microseconds each. The price is memory: all that
the function needs stays taken. Nothing is captured before it ran once, since what compiles kernels or makes a library's
handles may not be captured.

Arguments and results are tensors, or dataclasses, tuples and lists of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

X = TypeVar("X")
R = TypeVar("R")


class Graph(Generic[X, R]):
    """raises  torch.OutOfMemoryError if there is no memory to keep"""

    def __init__(self, function: Callable[[X], R], example: X) -> None:
        self._given: X = _rebuilt(example, iter([each.clone() for each in _tensors(example)]))
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            function(self._given)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may go on with their masks meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = function(self._given)

    def borrowed(self, given: X) -> R:
        """What the function gives. The next call writes over it."""
        _copy(list(_tensors(self._given)), list(_tensors(given)))
        self._graph.replay()
        return self._result

    def __call__(self, given: X) -> R:
        """The same in tensors of its own."""
        tensors = list(_tensors(self.borrowed(given)))
        copies = [torch.empty_like(each) for each in tensors]
        _copy(copies, tensors)
        return _rebuilt(self._result, iter(copies))


class Graphs(Generic[X, R]):
    """The graphs of one function, one for each size of its argument, made when it is first met.

    wanted  False on a CPU, and once memory was short
    """

    def __init__(self, device: torch.device) -> None:
        self.wanted = device.type == "cuda"
        self._of: dict[int, Graph[X, R]] = {}

    def of(self, size: int, function: Callable[[X], R], given: X) -> Graph[X, R]:
        """For arguments of that size, of which `given` is one. The function is not kept: it may hold this object."""
        if size not in self._of:
            self._of[size] = Graph(function, given)
        return self._of[size]

    def give_up(self) -> None:
        """Give their memory back, and want none again."""
        self.wanted = False
        self._of.clear()


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """One launch for all of a type; lists of several types would be copied one by one."""
    for dtype in dict.fromkeys(each.dtype for each in targets):
        ours = [pair for pair in zip(targets, sources, strict=True) if pair[0].dtype == dtype]
        torch._foreach_copy_(*map(list, zip(*ours, strict=True)))  # type: ignore[reportPrivateImportUsage]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:  # type: ignore[unknown]
            yield from _tensors(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _tensors(getattr(value, each.name))


def _rebuilt(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same with other tensors."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple | list):
        return type(value)(_rebuilt(each, tensors) for each in value)  # type: ignore[unknown]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{each.name: _rebuilt(getattr(value, each.name), tensors) for each in fields(value)})
    return value
