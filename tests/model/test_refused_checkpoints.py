"""Everything that may be wrong with a checkpoint, and what its user is told."""

from __future__ import annotations

import hashlib
import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.config import CONFIGS
from model.layouts import to_hugging_face
from model.load import CheckpointError, checked_sha256, load_sam
from tests.model.checkpoints import TINY, as_pth, as_safetensors, assert_same, released_state

Mend = Callable[[str, bytes, str], bytes]


@pytest.fixture
def mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mend:
    """What somebody gets who saves the checkpoint under a name and runs the line that an error gives."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, content: bytes, error: str) -> bytes:
        Path(name).write_bytes(content)
        (line,) = re.findall('python -c "(.*)"$', error)
        exec(line, {})
        return Path("new.pth").read_bytes()

    return run


@pytest.mark.parametrize(
    ("key", "prefix", "words"),
    [
        ("", "module.", "keys carry the prefix 'module.'"),
        ("", "model.sam.", "keys carry the prefix 'model.sam.'"),
        ("model", "module.", "keys carry the prefix 'module.'"),
        ("state_dict", "", "under the key 'state_dict'; "),
        ("state_dict", "model.", "under the key 'state_dict', behind the prefix 'model.'; "),
        ("ema", "", "under the key 'ema'; "),
    ],
)
@pytest.mark.parametrize("layout", [dict, to_hugging_face])
def test_what_a_trainer_put_around_the_weights_is_named_with_the_line_that_takes_it_off(
    layout: Callable[[dict[str, Tensor]], dict[str, Tensor]], key: str, prefix: str, words: str, mended: Mend
) -> None:
    """Lists of hundreds of missing and unexpected keys, or that it is no Segment Anything, would send users astray."""
    state = released_state()
    content: object = {prefix + name: tensor for name, tensor in layout(state).items()}
    data = as_pth({"epoch": 9, key: content} if key else content)
    for check in (load_sam, partial(checked_sha256, "tiny")):
        with pytest.raises(CheckpointError, match=re.escape(words)) as caught:
            check(data)
    assert_same(load_sam(mended("old.pth", data, str(caught.value))).state_dict(), state)


def test_a_prefix_in_a_safetensors_file_has_a_line_of_its_own(mended: Mend) -> None:
    """torch.load does not open such a file."""
    state = released_state()
    data = as_safetensors({f"sam.{name}": tensor for name, tensor in state.items()})
    with pytest.raises(CheckpointError, match=r"prefix 'sam\.'") as caught:
        load_sam(data)
    assert_same(load_sam(mended("old.safetensors", data, str(caught.value))).state_dict(), state)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_value_that_is_not_finite_is_refused_with_its_tensor(value: float, dtype: torch.dtype) -> None:
    """It ends in scores that pass no threshold: a run of days with not one mask, and exit code 0."""
    state = {name: tensor.to(dtype) for name, tensor in released_state().items()}
    state["mask_decoder.iou_token.weight"][0, 3] = value
    state["mask_decoder.mask_tokens.weight"][:] = value
    for check in (load_sam, partial(checked_sha256, "tiny")):
        with pytest.raises(CheckpointError, match=r"mask_decoder\.iou_token\.weight has 1 of 128 values.*not finite"):
            check(as_pth(state))


def test_large_finite_values_are_no_reason_to_refuse() -> None:
    """Their sum is not finite, and in half precision not even a thousand of 100."""
    state = {name: tensor.half() for name, tensor in released_state().items()}
    state["image_encoder.pos_embed"][:] = 60_000
    assert checked_sha256("tiny", as_pth(state))
    state = released_state()
    state["image_encoder.pos_embed"][:] = 3e38
    assert checked_sha256("tiny", as_pth(state))


def test_every_missing_and_unexpected_key_is_named() -> None:
    """A user who converts weights needs the whole list, not the first entry."""
    state = released_state()
    del state["mask_decoder.iou_token.weight"], state["prompt_encoder.no_mask_embed.weight"]
    state["extra.one"] = state["extra.two"] = torch.zeros(1)
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, TINY.decoder_dim)
    with pytest.raises(CheckpointError) as caught:
        load_sam(as_pth(state))
    message = str(caught.value)
    assert "missing prompt_encoder.no_mask_embed.weight" in message
    assert "unexpected extra.one" in message
    assert "unexpected extra.two" in message


def test_a_checkpoint_without_whole_parts_names_every_missing_key() -> None:
    """Sizes are read off some of the missing tensors, which must not shorten the list."""
    state = {name: tensor for name, tensor in released_state().items() if not name.startswith("mask_decoder.")}
    missing = [name for name in released_state() if name.startswith("mask_decoder.")]
    with pytest.raises(CheckpointError) as caught:
        load_sam(as_pth(state), expected=TINY)
    assert all(f"missing {name}" in str(caught.value) for name in missing)


def test_a_wrong_shape_is_named_with_both_shapes() -> None:
    """A transposed or resized tensor must not be broadcast into place."""
    state = released_state()
    state["prompt_encoder.not_a_point_embed.weight"] = torch.zeros(1, 7)
    with pytest.raises(CheckpointError, match=re.escape("not_a_point_embed.weight is (1, 7) instead of (1, 128)")):
        load_sam(as_pth(state))


def test_another_models_weights_are_refused_with_the_name_they_fit() -> None:
    """Choosing vit_h and giving vit_b's file is the usual mistake."""
    with pytest.raises(CheckpointError, match=r"not a vit_b: embed_dim=192 instead of 768.*it fits model=tiny"):
        load_sam(as_pth(released_state()), expected=CONFIGS["vit_b"])


class Bomb:
    """Runs a command when unpickled."""

    def __reduce__(self):
        return eval, ("__import__('os').environ.__setitem__('MASKMILL_BOMB', '1')",)


def test_code_inside_a_checkpoint_is_refused_and_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A .pth is a pickle; a downloaded one must not be able to do anything."""
    monkeypatch.delenv("MASKMILL_BOMB", raising=False)
    import os

    for data in (as_pth({"bomb": Bomb()}), pickle.dumps({"bomb": Bomb()}, protocol=2)):
        with pytest.raises(CheckpointError, match="pickled code"):
            load_sam(data)
    assert "MASKMILL_BOMB" not in os.environ


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>not found</html>", as_pth(released_state())[:200_000], as_safetensors(released_state())[:200_000]],
    ids=["empty", "html", "cut pth", "cut safetensors"],
)
def test_a_file_that_is_no_checkpoint_gets_a_sentence(data: bytes) -> None:
    """Half a download is common and must not end in a stack trace."""
    with pytest.raises(CheckpointError, match="checkpoint"):
        load_sam(data)


@pytest.mark.parametrize(
    "content",
    [{"a": 1}, [1, 2], {1: torch.zeros(2)}, {"weights": torch.zeros(2)}, {"image_encoder.pos_embed": torch.zeros(())}],
)
def test_a_torch_file_that_is_no_sam_gets_a_sentence(content: object) -> None:
    """Any other model's file."""
    with pytest.raises(CheckpointError, match=r"named tensors|not Segment Anything"):
        load_sam(as_pth(content))


def test_a_checkpoint_is_checked_before_a_run_is_planned_around_it() -> None:
    """A plan freezes the file's hash: a wrong file must be refused before, not by the first worker."""
    data = as_pth(released_state())
    assert checked_sha256("tiny", data) == hashlib.sha256(data).hexdigest()
    with pytest.raises(CheckpointError, match="not a vit_b"):
        checked_sha256("vit_b", data)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    assert checked_sha256("tiny", bytes(flipped)) != checked_sha256("tiny", data)
