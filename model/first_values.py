"""Modules made without their first random values, for weights that replace all of them.

Owns which calls draw such values. Constants that a module computes stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

DRAWS = (nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_)
"""What the layers of our models call when they are made."""


class _NoDraws(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        return given["tensor"] if func in DRAWS else func(*args, **given)


def without_first_values() -> TorchFunctionMode:
    """A context in which modules are made with parameters that may hold anything.

    Drawing the values of a large model takes seconds. On the meta device, which holds none, torch imports its compiler
    in order to draw them: 2 s of CPU time in every driver and worker (torch 2.13).
    """
    return _NoDraws()
