"""Everything that may be wrong with a checkpoint, and what its user is told."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import CONFIGS
from model.layouts import to_hugging_face
from model.load import CheckpointError, check_weights, load_sam
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
        ("", "net.", "keys carry the prefix 'net.'"),
        ("", "module.net.", "keys carry the prefix 'module.net.'"),
        ("model", "net.", "keys carry the prefix 'net.'"),
        ("ema", "", "under the key 'ema'; "),
        ("ema", "module.", "under the key 'ema', behind the prefix 'module.'; "),
    ],
)
@pytest.mark.parametrize("layout", [dict, to_hugging_face])
def test_an_unknown_wrapper_is_named_with_the_line_that_takes_it_off(
    layout: Callable[[dict[str, Tensor]], dict[str, Tensor]], key: str, prefix: str, words: str, mended: Mend
) -> None:
    """Lists of hundreds of missing and unexpected keys, or that it is no Segment Anything, would send users astray."""
    state = released_state()
    content: object = {prefix + name: tensor for name, tensor in layout(state).items()}
    data = as_pth({"epoch": 9, key: content} if key else content)
    for check in (load_sam, partial(check_weights, "tiny")):
        with pytest.raises(CheckpointError, match=re.escape(words)) as caught:
            check(data)
    assert_same(load_sam(mended("old.pth", data, str(caught.value))).state_dict(), state)


def test_a_prefix_in_a_safetensors_file_has_a_line_of_its_own(mended: Mend) -> None:
    """torch.load does not open such a file."""
    state = released_state()
    data = as_safetensors({f"net.{name}": tensor for name, tensor in state.items()})
    with pytest.raises(CheckpointError, match=r"prefix 'net\.'") as caught:
        load_sam(data)
    assert_same(load_sam(mended("old.safetensors", data, str(caught.value))).state_dict(), state)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda state: {"model": state, "ema": dict(state)}, "under the keys 'model', 'ema'"),
        (lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "model": state}, "'state_dict', "),
        (
            lambda state: {f"{who}.{k}": v for who in ("model", "teacher") for k, v in state.items()},
            "behind the prefixes 'model.', 'teacher.'",
        ),
    ],
)
def test_of_two_models_in_a_file_none_is_guessed(
    content: Callable[[dict[str, Tensor]], dict[str, object]], words: str, mended: Mend
) -> None:
    """The average and the last step of a training give other masks, and both load."""
    state = released_state()
    data = as_pth(content(state))
    with pytest.raises(CheckpointError, match=f"more than one model, .*{re.escape(words)}") as caught:
        load_sam(data)
    assert_same(load_sam(mended("old.pth", data, str(caught.value))).state_dict(), state)


def test_a_prefix_that_only_some_of_the_models_keys_have_is_refused() -> None:
    """It may be two halves of different models."""
    state = {(f"sam.{name}" if "encoder" in name else name): tensor for name, tensor in released_state().items()}
    with pytest.raises(CheckpointError, match=r"others of the model do not, for example mask_decoder\."):
        load_sam(as_pth(state))


@pytest.mark.parametrize(
    ("name", "value"), [("pixel_mean", (0.485, 0.456, 0.406)), ("pixel_std", (255.0,)), ("pixel_mean", (123.0,) * 3)]
)
def test_another_normalisation_than_ours_is_refused(name: str, value: tuple[float, ...]) -> None:
    """Its model would see images in other colours, and no score would tell."""
    with pytest.raises(CheckpointError, match=f"trained with {name} {value[0]:g}.* and not with "):
        load_sam(as_pth(released_state() | {name: torch.tensor(value).reshape(-1, 1, 1)}))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["w_a_000", "w_b_000", "mask_decoder.transformer.layers.0.norm1.weight"], "LoRA adapter alone"),
        (["base_model.model.vision_encoder.layers.0.attn.qkv.lora_A.weight"], "LoRA adapter alone"),
        (["image_encoder.blocks.0.attn.qkv.linear_a_q.weight", "image_encoder.blocks.0.norm1.bias"], "not merged"),
        (["detector_model.vision_encoder.backbone.x"], "SAM 3's detector alone"),
        (["detector.x", "tracker.model.interactive_sam_mask_decoder.x"], "SAM 3.1's multiplex file"),
        (["image_encoder.pos_embed", "mask_decoder.hf_token.weight"], "SAM-HQ"),
        (["image_encoder.backbone.stages.0.weight"], "EfficientViT-SAM"),
    ],
)
@pytest.mark.parametrize("around", [lambda tensors: tensors, lambda tensors: {"model": tensors}])
def test_files_of_other_models_and_of_adapters_are_told_what_they_are(
    names: list[str], words: str, around: Callable[[dict[str, Tensor]], object]
) -> None:
    """A list of hundreds of names that differ would not say that another file is needed."""
    data = as_pth(around({name: torch.zeros(1) for name in names}))
    for check in (load_sam, partial(check_weights, "vit_b")):
        with pytest.raises(CheckpointError, match=re.escape(words)):
            check(data)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_pickled_classes_are_named_with_the_line_that_leaves_them_out(*, new: bool, mended: Mend) -> None:
    """A best score as a number of NumPy is all that keeps many a training's checkpoint from opening."""
    state = released_state()
    buffer = io.BytesIO()
    content = {"model": state, "best": np.float64(0.9)}
    torch.save(content, buffer, _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match=r"pickled code beside its tensors \(numpy\..*scalar") as caught:
        load_sam(buffer.getvalue())
    assert_same(load_sam(mended("old.pth", buffer.getvalue(), str(caught.value))).state_dict(), state)


def test_a_whole_module_is_refused_with_the_line_that_saves_its_weights(mended: Mend) -> None:
    """SlimSAM's "global" files are such ones: opening them runs the code that they name."""
    data = as_pth(load_sam(as_pth(released_state())))
    with pytest.raises(CheckpointError, match=r"whole module, which is pickled code \(model\.config") as caught:
        load_sam(data)
    assert_same(load_sam(mended("old.pth", data, str(caught.value))).state_dict(), released_state())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_value_that_is_not_finite_is_refused_with_its_tensor(value: float, dtype: torch.dtype) -> None:
    """It ends in scores that pass no threshold: a run of days with not one mask, and exit code 0."""
    state = {name: tensor.to(dtype) for name, tensor in released_state().items()}
    state["mask_decoder.iou_token.weight"][0, 3] = value
    state["mask_decoder.mask_tokens.weight"][:] = value
    for check in (load_sam, partial(check_weights, "tiny")):
        with pytest.raises(CheckpointError, match=r"mask_decoder\.iou_token\.weight has 1 of 128 values.*not finite"):
            check(as_pth(state))


def test_large_finite_values_are_no_reason_to_refuse() -> None:
    """Their sum is not finite, and in half precision not even a thousand of 100."""
    state = {name: tensor.half() for name, tensor in released_state().items()}
    state["image_encoder.pos_embed"][:] = 60_000
    assert check_weights("tiny", as_pth(state))
    state = released_state()
    state["image_encoder.pos_embed"][:] = 3e38
    assert check_weights("tiny", as_pth(state))


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
    with pytest.raises(CheckpointError, match=r"not a vit_b: .*embed_dim=192 instead of 768.*it fits model=tiny"):
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
    ("data", "words"),
    [
        (b"", "it is cut short"),
        (b"\n<html>not found</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 375042383\n", "a pointer of Git LFS"),
        (b'{"metadata": {}, "weight_map": {}}', "an index of shards"),
        (as_pth(released_state())[:200_000], "cut short"),
        (as_safetensors(released_state())[:200_000], "it is cut short"),
    ],
    ids=["empty", "html", "pointer", "index", "cut pth", "cut safetensors"],
)
def test_a_file_that_is_no_checkpoint_gets_a_sentence(data: bytes, words: str) -> None:
    """Half a download is common and must not end in a stack trace."""
    with pytest.raises(CheckpointError, match=f"checkpoint.*{words}"):
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
    assert check_weights("tiny", data).sha256 == hashlib.sha256(data).hexdigest()
    with pytest.raises(CheckpointError, match="not a vit_b"):
        check_weights("vit_b", data)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    assert check_weights("tiny", bytes(flipped)).sha256 != check_weights("tiny", data).sha256
