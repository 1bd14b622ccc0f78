"""Loading a model: both public layouts, sizes read off the tensors, precisions, names of no model and of no device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model.config import CONFIGS, MODELS, ModelConfig
from model.first_values import without_first_values
from model.layouts import from_hugging_face, infer_config, to_hugging_face
from model.load import PRECISIONS, CheckpointError, load_sam, load_segmenter, resolve_device
from model.sam import Sam
from pipeline.settings import Precision
from tests.model.checkpoints import TINY, as_pth, as_safetensors, assert_same, released_state


def test_the_precisions_of_the_settings_are_those_of_the_loader() -> None:
    """A setting that the loader does not know would end a run in a KeyError on every worker."""
    assert list(PRECISIONS) == list(Precision)


NARROW_VIT_B = replace(CONFIGS["vit_b"], embed_dim=96)
"""Its twelve blocks, of which two have numbers of two digits, and its windows, with an eighth of its channels."""


@pytest.mark.parametrize("config", [TINY, NARROW_VIT_B], ids=["tiny", "vit_b"])
def test_both_layouts_survive_a_round_trip_exactly(config: ModelConfig) -> None:
    """A weight that changes on its way through a layout would change every mask."""
    state = released_state(config)
    assert_same(from_hugging_face(to_hugging_face(state)), state)
    assert_same(load_sam(as_pth(state)).state_dict(), state)
    assert_same(load_sam(as_safetensors(to_hugging_face(state))).state_dict(), state)


def test_loading_draws_no_numbers() -> None:
    """The first values of a large model take seconds, and the checkpoint replaces every one of them."""
    checkpoint, before = as_pth(released_state()), torch.random.get_rng_state()
    assert_same(load_sam(checkpoint).state_dict(), released_state())
    assert torch.equal(torch.random.get_rng_state(), before)


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


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith(("tiny_sam", "sam2_"))])
def test_sizes_are_read_off_the_tensors(name: str) -> None:
    """The file says what it is; nobody has to."""
    with torch.device("meta"), without_first_values():
        assert infer_config(Sam(MODELS[name]).state_dict()) == MODELS[name]


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


def test_a_cpu_computes_split_products_as_what_they_stand_for() -> None:
    """They are float32 in effect, and only tensor cores gain by them."""
    image_HW3 = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    one, other = (load_segmenter(name="tiny", precision=name).embed(image_HW3) for name in ("fp32", "bf16x3"))
    assert torch.equal(one.embedding_1Cgg, other.embedding_1Cgg)


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
    assert answer.logits_PMhw.dtype is answer.predicted_iou_PM.dtype is torch.float32
