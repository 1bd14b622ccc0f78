"""A function of one tensor as a CUDA graph: one launch instead of some thousand, for shapes that never change.

The host needs 5 to 10 us for each launch that it queues (facts of CUDA, not measured here), a graph as much for all of
it. The price: memory for all that the function needs stays taken. Nothing is captured before it ran once, since what
compiles kernels or makes a library's handles may not be captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")
"""Tensors in tuples, lists and dataclasses."""


class Graph(Generic[R]):
    """Gives what the function would: tensors of its own, that no later call changes.

    raises  torch.OutOfMemoryError if there is no memory to keep
    """

    def __init__(self, function: Callable[[Tensor], R], example: Tensor) -> None:
        self._input = example.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            function(self._input)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may go on with their masks meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = function(self._input)
        self._tensors = list(_tensors(self._output))

    def __call__(self, x: Tensor) -> R:
        self._input.copy_(x)
        self._graph.replay()
        copies = [torch.empty_like(each) for each in self._tensors]
        torch._foreach_copy_(copies, self._tensors)  # type: ignore[reportPrivateImportUsage]
        return _rebuilt(self._output, iter(copies))


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
