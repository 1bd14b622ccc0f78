"""SAM 3's points: transformers' image encoder with our decoder against transformers' own model, and the files of it."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.reference.hugging_face import hugging_face_3
from benchmarks.reference.random_sam_2 import calibrated_sam_2
from model import sam2_layouts
from model.config import MODELS, Sam3Config
from model.first_values import without_first_values
from model.load import CheckpointError, check_weights, load_sam
from model.point_decoder import PointDecoder
from model.sam import Sam
from model.segmenter import TorchSegmenter
from model.training.scenes import held_out_scene
from pipeline.masks.generator import generate_masks
from pipeline.settings import Recipe
from tests.model.checkpoints import as_pth, as_safetensors, assert_same
from tests.model.sam2 import unread_by_the_encoder
from tests.model.test_sam2 import assert_close

SMALL = Sam3Config(
    "sam3",
    embed_dim=64,
    depth=3,
    heads=2,
    mlp_dim=96,
    global_blocks=(1,),
    window=4,
    table_side=4,
    input_side=168,
    decoder_dim=64,
    decoder_mlp=128,
    iou_head_dim=64,
)
"""12 tokens a side are three windows, as 72 are three of 24."""


@pytest.fixture(scope="module")
def theirs() -> Any:
    return hugging_face_3(SMALL, seed=2)


@pytest.fixture(scope="module")
def sam(theirs: Any) -> Sam:
    return load_sam(as_safetensors(whole(theirs.state_dict())), expected=SMALL)


def whole(tracker: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in model.safetensors of facebook/sam3: the tensors of `Sam3TrackerModel`, and of each other part one."""
    names = [
        *("detector_model.vision_encoder.neck.fpn_layers.0.proj1.bias", "detector_model.text_encoder.text_model.x"),
        *("detector_model.mask_decoder.x", "tracker_neck.fpn_layers.3.proj1.bias"),
        *("tracker_model.memory_attention.layers.0.x", "tracker_model.no_object_pointer"),
    ]
    prefixes = {"vision_encoder.backbone.": "detector_model.", "vision_encoder.neck.": "", "": "tracker_model."}
    tensors = dict.fromkeys(names, torch.zeros(2))
    for name, tensor in tracker.items():
        prefix = next(each for root, each in prefixes.items() if name.startswith(root))
        tensors[(prefix + name).replace("vision_encoder.neck.", "tracker_neck.")] = tensor
    return tensors


def released(sam: Sam) -> dict[str, Tensor]:
    """As in sam3.pt: queries, keys and values in one, a row for a token of the pretraining, angles of positions."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in sam2_layouts.released(sam.state_dict()).items():
        if not name.startswith("image_encoder."):
            tensors[f"tracker.{name}"] = tensor
            continue
        name = name.removeprefix("image_encoder.vision.").replace("neck.fpn_layers.", "sam2_convs.")
        for ours, theirs in (
            ("backbone.", "trunk."),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
            ("trunk.layer_norm.", "trunk.ln_pre."),
            (".layers.", ".blocks."),
            (".layer_norm", ".norm"),
            (".attention.o_proj.", ".attn.proj."),
            ("sam2_convs.0.scale_layers.0.", "sam2_convs.0.dconv_2x2_0."),
            (".scale_layers.0.", ".dconv_2x2."),
            (".scale_layers.2.", ".dconv_2x2_1."),
            (".proj1.", ".conv_1x1."),
            (".proj2.", ".conv_3x3."),
        ):
            name = name.replace(ours, theirs)
        tensors[f"detector.backbone.vision_backbone.{name}"] = tensor
    for name in [name for name in tensors if ".attention.q_proj." in name]:
        parts = [tensors.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        tensors[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    root = "detector.backbone.vision_backbone."
    table = tensors[f"{root}trunk.pos_embed"]
    tensors[f"{root}trunk.pos_embed"] = torch.cat([torch.ones_like(table[:, :1]), table], dim=1)
    tensors[f"{root}trunk.blocks.0.attn.freqs_cis"] = torch.ones(4, 2, dtype=torch.complex64)
    names = [f"{root}convs.0.conv_1x1.bias", f"{root}sam2_convs.3.conv_1x1.bias", "detector.transformer.x"]
    names += ["tracker.transformer.encoder.x", "tracker.maskmem_tpos_enc", "tracker.no_obj_embed_spatial"]
    names += ["tracker.sam_mask_decoder.pred_obj_score_head.layers.0.bias"]
    return tensors | dict.fromkeys(names, torch.zeros(2))


@torch.inference_mode()
def test_points_get_the_masks_and_scores_of_transformers(sam: Sam, theirs: Any) -> None:
    """From the image on: the names of the tensors, what "nothing remembered" adds, and our decoder at another grid."""
    images, coords_P2 = torch.randn(1, 3, 168, 168), torch.rand(5, 2) * 168
    seen, embeddings = sam.embed(images), theirs.get_image_embeddings(images)
    assert seen.fine is not None
    for mine, wanted in zip((*seen.fine, seen.embedding_1Cgg), embeddings, strict=True):
        assert_close(mine, wanted, share=1e-6)
    asked = theirs(image_embeddings=embeddings, input_points=coords_P2[None, :, None])
    decoder, g = PointDecoder(sam), SMALL.grid_side
    ours = decoder.decode(decoder.share(*seen), coords_P2, pred_iou_thresh=-math.inf, cells_hw=(g, g))
    assert_close(ours.logits_PMhw, asked.pred_masks[0], share=1e-5)
    torch.testing.assert_close(ours.predicted_iou_PM, asked.iou_scores[0], rtol=0, atol=3e-6)
    assert float(asked.iou_scores.std()) > 0.01


def test_every_tensor_of_the_encoder_moves_what_the_decoder_gets(theirs: Any) -> None:
    sam = load_sam(as_safetensors(whole(theirs.state_dict())), expected=SMALL)
    assert unread_by_the_encoder(sam, torch.randn(1, 3, 168, 168)) == []


def test_both_layouts_load_to_the_same_model(sam: Sam, theirs: Any) -> None:
    """sam3.pt keeps queries, keys and values in one tensor, and a row of positions that no patch has."""
    for tensors in (theirs.state_dict(), released(sam), {f"module.{name}": t for name, t in released(sam).items()}):
        assert_same(load_sam(as_pth({"model": tensors}), expected=SMALL).state_dict(), sam.state_dict())


def test_a_file_says_what_it_is_and_which_parts_are_left_out() -> None:
    """A run's metadata has family, layout and what was dropped. Nothing of the model itself may be missing."""
    with torch.device("meta"), without_first_values():
        shapes = Sam(MODELS["sam3"]).state_dict()
    state = {name: torch.zeros((), dtype=torch.half).expand(tensor.shape) for name, tensor in shapes.items()}
    hf = sam2_layouts.hugging_face({name: t for name, t in state.items() if "image_encoder" not in name})
    encoder = {name.replace("image_encoder.vision.", "vision_encoder."): t for name, t in state.items()}
    tensors = whole(hf | {name: tensor for name, tensor in encoder.items() if name.startswith("vision_encoder.")})
    told = check_weights("sam3", as_pth(tensors))
    assert (told.family, told.layout) == ("sam3", "hugging_face")
    assert [note.partition(":")[0] for note in told.notes] == [
        "the detector, which takes words and examples (3",
        "what only videos need (2",
        "the neck's coarsest map, which no point is answered from (1",
    ]
    del tensors["tracker_model.no_memory_embedding"]
    with pytest.raises(CheckpointError, match=r"differ from Segment Anything's: missing no_mem_embed$"):
        check_weights("sam3", as_pth(tensors))


def test_a_sam_3_of_unknown_channels_and_blocks_is_refused(theirs: Any) -> None:
    """Windows and heads do not show in a file."""
    with pytest.raises(CheckpointError, match=r"a SAM 3 with 64 channels and 3 blocks; the windows and heads"):
        check_weights("sam3", as_safetensors(whole(theirs.state_dict())))


@pytest.mark.parametrize("installed", [True, False])
def test_without_a_transformers_that_has_it_the_error_is_one_line_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    """It is optional, and older ones have no SAM 3, or one that imports torchvision."""
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers") if installed else None)
    if not installed:
        monkeypatch.setattr("importlib.metadata.Distribution.discover", lambda **_: iter(()))
    what = r"transformers 5\S* does not have it \(.*\)" if installed else "it is not installed"
    with pytest.raises(
        CheckpointError, match=rf"^model=sam3 takes .*, and {what}: pip install 'transformers>=5\.4,<6'$"
    ):
        Sam(SMALL)


def test_the_generator_finds_masks_with_it() -> None:
    """Stretched crops of 168 pixels, a grid that is no power of two, and masks of 48 cells."""
    image_HW3 = held_out_scene(77, size_hw=(90, 150)).rgb_HW3
    sam = calibrated_sam_2(replace(SMALL, decoder_dim=128), image_HW3, seed=1)
    recipe = Recipe(points_per_side=6, pred_iou_thresh=0.6, stability_score_thresh=0.6, box_nms_thresh=0.98)
    [result] = generate_masks([image_HW3], TorchSegmenter(sam, weights_sha256=""), recipe)
    assert len(result.masks) > 3
