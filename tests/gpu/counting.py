"""What work on `meta` tensors would be on a GPU: how many kernels, and how many bytes they are given and give back.

`meta` tensors have sizes and no data, so a model of any size costs seconds. Each tensor of an operator counts once,
whatever a cache may save and however often a kernel reads it: bytes by operators, as in docs/cost.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from triton.runtime.interpreter import GridExecutor

from tests.gpu.pretended import FREE

META = torch.device("meta")


class Launches(TorchDispatchMode):
    """Counts the operators that are kernels on a GPU, and the bytes of each."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler at the first operator, to keep away from it: 2 s of CPU time (2.13)."""
        return False

    @property
    def gigabytes(self) -> float:
        return self.bytes.total() / 1e9

    def add(self, name: str, *values: Any) -> None:
        """One kernel that was given, or gave, the tensors among these."""
        self.of[name] += 1
        tensors = {id(each): each for each in tree_iter(values) if isinstance(each, Tensor)}
        self.bytes[name] += sum(each.numel() * each.element_size() for each in tensors.values())

    def __enter__(self) -> Self:
        launches = self

        def counted(executor: Any, *args: Any, **options: Any) -> None:
            launches.add(executor.fn.__name__, args, options)

        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(GridExecutor, "__call__", counted)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patch.undo()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, result = func._schema.name.removeprefix("aten::"), func(*args, **(kwargs or {}))
        if name not in FREE and any(isinstance(each, Tensor) and each.device == META for each in tree_iter(result)):
            self.add(name, args, kwargs, result)
        return result


class OneKernelForAttention(TorchFunctionMode):
    """As a GPU has it. For `meta` torch takes it apart."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _attention(*args, *(kwargs or {}).values())
        return func(*args, **(kwargs or {}))


@torch.library.custom_op("tests::attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.empty_like(q)


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.empty_like(q)
