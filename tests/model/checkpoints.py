"""Checkpoints of random weights: their tensors, and files of them as torch and as safetensors write them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from model.config import CONFIGS, ModelConfig
from model.sam import Sam

TINY = CONFIGS["tiny"]


def released_state(config: ModelConfig = TINY) -> dict[str, Tensor]:
    """Anew each time: a test may write into it."""
    return {name: tensor.clone() for name, tensor in _state(config).items()}


@cache
def _state(config: ModelConfig) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return Sam(config).state_dict()


def as_pth(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def as_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    return save_safetensors({name: tensor.clone().contiguous() for name, tensor in tensors.items()})


def assert_same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
