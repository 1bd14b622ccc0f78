"""Checkpoints: both public layouts, and everything that may be wrong with a file."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from model.config import CONFIGS
from model.layouts import from_hugging_face, infer_config, to_hugging_face
from model.load import PRECISIONS, CheckpointError, checked_sha256, load_sam, load_segmenter, resolve_device
from model.sam import Sam
from pipeline.settings import Precision

TINY = CONFIGS["tiny"]
Mend = Callable[[str, bytes, str], bytes]


def test_the_precisions_of_the_settings_are_those_of_the_loader() -> None:
    """A setting that the loader does not know would end a run in a KeyError on every worker."""
    assert list(PRECISIONS) == list(Precision)


def released_state(config=TINY) -> dict[str, Tensor]:
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


@pytest.mark.parametrize("name", ["tiny", "vit_b"])
def test_both_layouts_survive_a_round_trip_exactly(name: str) -> None:
    """A weight that changes on its way through a layout would change every mask."""
    state = released_state(CONFIGS[name])
    assert_same(from_hugging_face(to_hugging_face(state)), state)
    assert_same(load_sam(as_pth(state)).state_dict(), state)
    assert_same(load_sam(as_safetensors(to_hugging_face(state))).state_dict(), state)


@pytest.fixture
def tf32() -> Iterator[None]:
    """Somebody has switched it on before."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]  # types of their own, not told
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.mark.usefixtures("tf32")
def test_a_loaded_model_multiplies_whole_float32() -> None:
    """TF32 drops 13 bits of every product, on the GPUs that most runs use."""
    load_segmenter(name="tiny")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_hugging_face_names_are_those_of_transformers() -> None:
    """Our table of names is only right if the library that owns the layout agrees, key by key."""
    from transformers import SamConfig as HuggingFaceConfig
    from transformers import SamModel

    with torch.device("meta"):
        theirs = SamModel(HuggingFaceConfig()).state_dict()
        ours = to_hugging_face(Sam(CONFIGS["vit_b"]).state_dict())
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }


@pytest.mark.parametrize("name", list(CONFIGS))
def test_sizes_are_read_off_the_tensors(name: str) -> None:
    """The file says what it is; nobody has to."""
    with torch.device("meta"):
        assert infer_config(Sam(CONFIGS[name]).state_dict()) == CONFIGS[name]


def test_a_three_layer_decoder_loads_under_its_encoders_name() -> None:
    """The paper's own generation model has one decoder layer more than the released ones (appendix B)."""
    state = released_state(replace(TINY, decoder_depth=3))
    sam = load_sam(as_pth(state), expected=TINY)
    assert sam.config.decoder_depth == 3
    assert sam.config.name == "tiny"


def test_a_training_checkpoint_with_the_model_beside_other_tables_loads() -> None:
    """Many tools save {"model": state_dict, ...}."""
    state = released_state()
    assert_same(load_sam(as_pth({"model": state, "step": 3})).state_dict(), state)


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


def test_released_sizes_without_a_checkpoint_say_where_weights_come_from() -> None:
    """vit_h cannot be bundled."""
    with pytest.raises(CheckpointError, match=r"set model\.checkpoint"):
        load_segmenter(name="vit_h")


def test_an_unknown_model_or_device_is_refused_by_name() -> None:
    """Both are typos, and both would otherwise surface deep inside torch."""
    with pytest.raises(CheckpointError, match=r"no model named 'vit_x'.*vit_b"):
        load_segmenter(name="vit_x")
    with pytest.raises(CheckpointError, match="'gpu' is no device"):
        resolve_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_asking_for_cuda_without_cuda_says_so() -> None:
    """Falling back silently would make a run a hundred times slower than its user thinks."""
    with pytest.raises(CheckpointError, match="sees no CUDA device"):
        resolve_device("cuda")


def test_a_checkpoint_without_whole_parts_names_every_missing_key() -> None:
    """Sizes are read off some of the missing tensors, which must not shorten the list."""
    state = {name: tensor for name, tensor in released_state().items() if not name.startswith("mask_decoder.")}
    missing = [name for name in released_state() if name.startswith("mask_decoder.")]
    with pytest.raises(CheckpointError) as caught:
        load_sam(as_pth(state), expected=TINY)
    assert all(f"missing {name}" in str(caught.value) for name in missing)


def test_a_checkpoint_is_checked_before_a_run_is_planned_around_it() -> None:
    """A plan freezes the file's hash: a wrong file must be refused before, not by the first worker."""
    data = as_pth(released_state())
    assert checked_sha256("tiny", data) == hashlib.sha256(data).hexdigest()
    with pytest.raises(CheckpointError, match="not a vit_b"):
        checked_sha256("vit_b", data)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    assert checked_sha256("tiny", bytes(flipped)) != checked_sha256("tiny", data)


def test_bf16_is_the_encoders_products_alone() -> None:
    """The fast mode may round features; norms, scores and masks stay float32, and what it sees is still the image."""
    image_HW3 = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    checkpoint = as_pth(released_state())
    exact, fast = (load_segmenter(name="tiny", checkpoint=checkpoint, precision=name) for name in ("fp32", "bf16"))
    dtypes = {name: value.dtype for name, value in fast.sam.state_dict().items() if value.dtype is not torch.float32}
    assert set(dtypes.values()) == {torch.bfloat16}
    assert all(name.startswith("image_encoder.") and "norm" not in name for name in dtypes)
    one, other = (segmenter.encode([image_HW3])[0].image.upscaled_NE for segmenter in (exact, fast))
    assert other.dtype is torch.float32
    assert 0 < float((one - other).norm() / one.norm()) < 0.02
    points_xy_P2 = np.array([[64.0, 48.0]])
    answer = fast.decode(fast.encode([image_HW3])[0], points_xy_P2, pred_iou_thresh=-math.inf)
    assert answer.logits_Nhw.dtype is answer.predicted_iou_N.dtype is torch.float32
