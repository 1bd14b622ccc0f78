"""Files of SAM 2: both public layouts, what only videos need, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.reference.random_sam_2 import random_sam_2
from model import sam2_layouts
from model.config import MODELS, HieraConfig
from model.first_values import without_first_values
from model.load import CheckpointError, check_weights, load_sam
from model.sam import Sam
from tests.model.checkpoints import as_pth, as_safetensors, assert_same
from tests.model.sam2 import SMALL

PRESENCE = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_sam_2(SMALL, seed=7).state_dict()


def empty(name: str) -> dict[str, Tensor]:
    """Names and shapes of a whole model under our names, of values that take no memory to speak of."""
    with torch.device("meta"), without_first_values():
        shapes = Sam(MODELS[name]).state_dict()
    return {key: torch.zeros((), dtype=torch.float16).expand(tensor.shape) for key, tensor in shapes.items()}


@pytest.mark.parametrize("layout", [sam2_layouts.released, sam2_layouts.hugging_face])
@pytest.mark.parametrize("container", [as_pth, as_safetensors, lambda tensors: as_pth({"model": tensors})])
def test_both_layouts_load_from_either_container(
    state: dict[str, Tensor], layout: Callable[[dict[str, Tensor]], dict[str, Tensor]], container: Callable[..., bytes]
) -> None:
    """Released names in safetensors go round, and Hugging Face's in .bin: names decide."""
    data = container(layout(state))
    assert_same(load_sam(data, expected=SMALL).state_dict(), state)


def test_hugging_face_names_are_those_of_transformers() -> None:
    """All 469 of a video model: those of the image model, those of the head that no mask depends on, and 160 of videos,
    each by its exact name."""
    from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

    with torch.device("meta"), without_first_values():
        image, video = Sam2Model(Sam2Config()).state_dict(), Sam2VideoModel(Sam2VideoConfig()).state_dict()
        ours = Sam(MODELS["sam2.1_tiny"]).state_dict()
    found, notes = sam2_layouts.ours(video)
    assert {name: tensor.shape for name, tensor in found.items()} == {name: t.shape for name, t in ours.items()}
    assert [note.partition(":")[0] for note in notes] == [
        "what only videos need (160",
        "the head of the object's presence, which no mask depends on (6",
    ]
    assert {name for name in image if "pred_obj_score_head" not in name} == sam2_layouts.hugging_face(ours).keys()
    assert (sam2_layouts.release_of(video), sam2_layouts.release_of(image)) == ("2.1", None)


@pytest.mark.parametrize("name", ["sam2_tiny", "sam2.1_base_plus"])
def test_a_file_is_checked_under_its_own_name_and_what_was_left_out_is_told(name: str) -> None:
    """The run's metadata says what was not used of a file."""
    names = ["maskmem_tpos_enc", "obj_ptr_proj.layers.0.weight", PRESENCE]
    extra = dict.fromkeys([*names, "no_obj_embed_spatial"] if "2.1" in name else names, torch.zeros(1))
    data = as_pth({"model": sam2_layouts.released(empty(name)) | extra})
    told = check_weights(name, data).notes
    assert [note.partition(" (")[0] for note in told] == [
        "what only videos need",
        "the head of the object's presence, which no mask depends on",
    ]
    other = name.replace("sam2.1", "sam2") if "2.1" in name else name.replace("sam2", "sam2.1")
    with pytest.raises(CheckpointError, match=rf"is not a {other}: it is of SAM {name[3:].partition('_')[0]}; it fits"):
        check_weights(other, data)


def test_the_release_that_a_file_of_the_image_model_alone_is_of_is_the_users_word() -> None:
    """Hugging Face's image model has no tensor that would tell. Another family is told all the same."""
    data = as_pth(sam2_layouts.hugging_face(empty("sam2_tiny")))
    assert check_weights("sam2_tiny", data).notes == check_weights("sam2.1_tiny", data).notes == ()
    with pytest.raises(CheckpointError, match=r"not a vit_b: .*another family; it fits model=sam2\.1_tiny"):
        check_weights("vit_b", data)


@pytest.mark.parametrize("expected", [None, MODELS["sam2.1_tiny"]])
def test_a_hiera_of_unknown_channels_and_blocks_is_refused(
    state: dict[str, Tensor], expected: HieraConfig | None
) -> None:
    """With guessed windows every mask would be wrong and no key would differ."""
    with pytest.raises(CheckpointError, match=r"SAM 2 with \[16, 32, 64, 128\] channels and \[1, 2, 3, 2\] blocks"):
        load_sam(as_pth(sam2_layouts.released(state)), expected=expected)


def test_a_tensor_more_or_one_less_is_named(state: dict[str, Tensor]) -> None:
    """A fine-tune with a part of its own is another model."""
    released = sam2_layouts.released(state)
    with pytest.raises(CheckpointError, match=r"unexpected memory_attention\.layers\.4\.norm1\.bias$"):
        load_sam(as_pth(released | {"memory_attention.layers.4.norm1.bias": torch.ones(1)}), expected=SMALL)
    del released["no_mem_embed"]
    with pytest.raises(CheckpointError, match=r"missing no_mem_embed$"):
        load_sam(as_pth(released), expected=SMALL)


def test_another_size_than_the_one_asked_for_is_told_with_what_it_is() -> None:
    """A file given under a wrong name."""
    data = as_pth(sam2_layouts.released(empty("sam2.1_large")))
    with pytest.raises(CheckpointError, match=r"not a sam2\.1_small: dims=.*; it fits model=sam2\.1_large"):
        check_weights("sam2.1_small", data)


def test_a_trainers_prefix_is_taken_off(state: dict[str, Tensor]) -> None:
    """As of SAM 1's."""
    config = replace(SMALL, name="custom")
    tensors = {f"module.{name}": tensor for name, tensor in sam2_layouts.released(state).items()}
    assert_same(load_sam(as_pth({"model": tensors, "epoch": 3}), expected=config).state_dict(), state)
