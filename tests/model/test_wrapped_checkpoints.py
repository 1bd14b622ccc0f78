"""Checkpoints as trainers leave them: what is taken off to find the model, and what is told of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.layouts import to_hugging_face
from model.load import check_weights, load_sam
from tests.model.checkpoints import as_pth, as_safetensors, assert_same, released_state


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("key", "prefix", "notes"),
    [
        ("state_dict", "", ["weights under the key 'state_dict', without epoch, options"]),
        ("model_state_dict", "module.", ["weights under the key 'model_state_dict', without", "prefix 'module.'"]),
        ("model_state", "", ["weights under the key 'model_state'"]),
        ("model", "sam.", ["weights under the key 'model'", "prefix 'sam.'"]),
        ("", "module.", ["prefix 'module.'"]),
        ("", "_orig_mod.module.model.sam.", ["prefix '_orig_mod.module.model.sam.'"]),
    ],
)
@pytest.mark.parametrize("layout", [dict, to_hugging_face])
def test_wrappers_and_prefixes_are_taken_off_and_told(
    layout: Callable[[dict[str, Tensor]], dict[str, Tensor]], key: str, prefix: str, notes: list[str]
) -> None:
    """What people have is what their trainer saved, not what the model's authors released."""
    state = released_state()
    content: object = prefixed(prefix, layout(state))
    options = argparse.Namespace(lr=1e-4, data="/data")
    data = as_pth({"epoch": 9, key: content, "options": options} if key else content)
    assert_same(load_sam(data).state_dict(), state)
    told = check_weights("tiny", data).notes
    assert len(told) == len(notes)
    assert all(sentence.startswith(note) for sentence, note in zip(told, notes, strict=True))


def test_a_prefix_in_safetensors_is_taken_off() -> None:
    """The container says nothing of who wrote it."""
    state = released_state()
    assert_same(load_sam(as_safetensors(prefixed("model.", state))).state_dict(), state)


@pytest.mark.parametrize("layout", [dict, to_hugging_face, lambda state: {"model": state, "step": 3}])
def test_files_that_have_always_loaded_have_no_notes(layout: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Notes are part of a plan: with one more, a run of an earlier version could not be resumed."""
    assert check_weights("tiny", as_pth(layout(released_state()))).notes == ()


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        *((torch.float32, shape) for shape in ((3,), (3, 1, 1), (1, 3, 1, 1))),
        *((dtype, (3, 1, 1)) for dtype in (torch.float16, torch.bfloat16, torch.float64)),
    ],
)
def test_the_usual_normalisation_in_a_file_is_dropped_and_told(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Wrappers register it as buffers; in half precision it is the usual one after rounding."""
    state = released_state()
    buffers = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}
    stored = {name: torch.tensor(value).to(dtype).reshape(shape) for name, value in buffers.items()}
    data = as_pth(prefixed("sam.", state | stored))
    assert_same(load_sam(data).state_dict(), state)
    note = "the normalisation that is used anyway (2: pixel_mean to pixel_std)"
    assert check_weights("tiny", data).notes == ("prefix 'sam.' of the keys", note)
