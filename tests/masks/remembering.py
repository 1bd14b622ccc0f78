"""The released network, which is slow, asked each thing once."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def asked_once(sam: Any) -> Generator[None]:
    """The released network answers what it was asked before, to the bit, with what it answered: two generators that ask
    it the same cost it once. What differs in a bit is computed."""
    parts = (sam.image_encoder, sam.mask_decoder)
    for part in parts:
        part.forward = remembering(part.forward)
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def remembering(forward: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[Any, Any] = {}

    def remembered(*tensors: Any, **named: Any) -> Any:
        key = *map(identity, tensors), *((name, identity(value)) for name, value in sorted(named.items()))
        if key not in known:
            known[key] = forward(*tensors, **named)
        return known[key]

    return remembered


def identity(value: Any) -> Any:
    """Equal for equal bits. An expanded tensor is hashed without its repetitions."""
    if not isinstance(value, torch.Tensor):
        return value
    once = value[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in value.stride())]
    return value.dtype, value.shape, once.contiguous().numpy().tobytes()
