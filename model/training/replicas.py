"""Gradients of one batch on several threads, each with a slice of the images and one core.

On a shared CPU this is faster than threads inside every operator: these wait for one another a thousand times a step,
replicas once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)
Slice = TypeVar("Slice")
Result = TypeVar("Result")


class Replicas(Generic[Model]):
    """Copies of a model that share its weights and have gradients of their own."""

    def __init__(self, model: Model, count: int) -> None:
        self.count = count
        self._models = [model, *(copy.deepcopy(model) for _ in range(count - 1))]
        for copied in self._models[1:]:
            for own, shared in zip(copied.parameters(), model.parameters(), strict=True):
                own.data = shared.data
        self._threads = ThreadPoolExecutor(count)

    def backward(self, slices: list[Slice], run: Callable[[Model, Slice], Result]) -> list[Result]:
        """Let `run` add gradients to its model for each slice; afterwards the first model has their mean."""
        for model in self._models:
            model.zero_grad(set_to_none=True)
        used = self._models[: len(slices)]
        results = list(self._threads.map(run, used, slices))
        if len(used) == 1:
            return results
        for parameters in zip(*(model.parameters() for model in used), strict=True):
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                parameters[0].grad = torch.stack(gradients).sum(0) / len(used)
        return results
