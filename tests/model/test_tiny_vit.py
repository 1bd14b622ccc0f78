"""Our TinyViT and the models with it, against the released MobileSAM on the same random weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import nn

from benchmarks.reference.mobile import SmallEncoder, build_mobile, mobile_sam
from benchmarks.reference.official import build_official, calibrate
from model.config import MODELS, TinyVitConfig
from model.first_values import without_first_values
from model.load import CheckpointError, check_weights, load_sam
from model.sam import Sam
from model.segmenter import TorchSegmenter
from model.tiny_vit import TinyVit
from pipeline.masks.generator import generate_masks
from pipeline.settings import Recipe
from tests.masks.conftest import MINI, scene
from tests.masks.test_equality import assert_equal
from tests.model.checkpoints import as_pth, assert_same

MOBILE = cast(TinyVitConfig, MODELS["mobile_sam"])
SIDE = 256
"""Of a small input: maps of 64, 32, 16 and 16 tokens a side, of which windows of 7 and 14 fill none."""
SMALL = replace(MOBILE, input_side=SIDE)


def randomise(module: nn.Module) -> None:
    """Every parameter and every statistic of a norm, large enough to show in the output."""
    torch.manual_seed(5)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("norm.weight", "bn.weight")) or ("neck" in name and tensor.dim() == 1):
            tensor.copy_(1 + 0.1 * torch.randn_like(tensor))
        elif tensor.is_floating_point():
            scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 and "attention_biases" not in name else 0.3
            tensor.copy_(scale * torch.randn_like(tensor))


@pytest.fixture(scope="module")
def encoders() -> tuple[TinyVit, SmallEncoder]:
    """Ours, and the released one."""
    theirs = SmallEncoder(SIDE)
    randomise(theirs)
    theirs.train().eval()  # the released code keeps the attentions' biases from when it is put into evaluation
    ours = TinyVit(SMALL).eval().requires_grad_(requires_grad=False)
    state = theirs.released.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    return ours, theirs


@torch.inference_mode()
def test_the_encoder_equals_the_released_one(encoders: tuple[TinyVit, SmallEncoder]) -> None:
    """Every claim of MobileSAM's and TinySAM's masks rests on this."""
    ours, theirs = encoders
    images_2 = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(ours(images_2), theirs(images_2), rtol=0, atol=1e-4)


@torch.inference_mode()
def test_the_encoder_equals_the_released_one_in_double_precision(encoders: tuple[TinyVit, SmallEncoder]) -> None:
    """There sums of another order are no excuse. The neck, which is float32 here, is left out."""
    ours, theirs = copy.deepcopy(encoders)
    ours.double()
    theirs.double()
    images = torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64)
    x = ours.patch_embed(images)
    for stage in ours.layers:
        x = stage(x)
    torch.testing.assert_close(x, theirs.before_neck(images), rtol=0, atol=1e-9)


@torch.inference_mode()
def test_every_tensor_of_the_encoder_moves_its_output() -> None:
    """One that is not read would load and be silently ignored."""
    sizes = {"dims": (16, 16, 32, 32), "depths": (1, 1, 1, 1), "heads": (2, 2, 2), "decoder_dim": 16}
    ours = TinyVit(replace(MOBILE, input_side=128, **sizes)).eval()
    randomise(ours)
    images = torch.randn(1, 3, 128, 128)
    before = ours(images)
    for name, tensor in ours.state_dict().items():
        kept = tensor.clone()
        tensor.add_(torch.rand_like(tensor))
        assert (ours(images) - before).abs().max() > 1e-3, name
        tensor.copy_(kept)


def test_the_released_files_439_tensors_load() -> None:
    """All of them: those of a classifier and of counters are dropped and told, and one more is refused."""
    state = build_mobile().state_dict()
    assert len(state) == 439
    sam = load_sam(as_pth(state), expected=MOBILE)
    assert_same(sam.state_dict(), {name: state[name] for name in sam.state_dict()})
    notes = check_weights("tiny_sam", as_pth(state)).notes
    assert [note.split(":")[0] for note in notes] == ["the classifier of ImageNet (4", "the counters of batches (27"]
    assert len(state) - len(sam.state_dict()) == 4 + 27
    with pytest.raises(CheckpointError, match=r"unexpected image_encoder\.head\.scale$"):
        load_sam(as_pth(state | {"image_encoder.head.scale": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"not a vit_b: .*another family; it fits model=mobile_sam"):
        check_weights("vit_b", as_pth(state))


def test_a_tiny_vit_of_other_sizes_is_refused_with_what_differs() -> None:
    """TinyViT also comes with 11 and 21 million parameters."""
    with torch.device("meta"), without_first_values():
        wide = Sam(replace(MOBILE, dims=(64, 128, 256, 448), heads=(4, 8, 14))).state_dict()
    state = {name: torch.zeros(tensor.shape, dtype=torch.float16) for name, tensor in wide.items()}
    with pytest.raises(CheckpointError, match=r"not a mobile_sam: dims=\(64, 128, 256, 448\) instead of"):
        check_weights("mobile_sam", as_pth(state))


def test_the_whole_generator_gives_the_released_ones_masks(encoders: tuple[TinyVit, SmallEncoder]) -> None:
    """Encoder, decoder and filters together, as a user runs them."""
    image_HW3 = scene(180, 240, seed=1)
    torch.manual_seed(0)
    official = build_official(replace(MINI, input_side=SIDE, decoder_dim=256, decoder_heads=8, decoder_mlp=512))
    official.image_encoder = encoders[1]
    calibrate(official, image_HW3)
    sam = Sam(replace(SMALL, decoder_mlp=512, iou_head_dim=MINI.iou_head_dim))
    rest = {name: tensor for name, tensor in official.state_dict().items() if not name.startswith("image_encoder.")}
    encoder = {f"image_encoder.{name}": tensor for name, tensor in encoders[0].state_dict().items()}
    sam.load_state_dict(rest | encoder)
    options = {"points_per_side": 8, "pred_iou_thresh": 0.85, "box_nms_thresh": 0.95}
    [result] = generate_masks([image_HW3], TorchSegmenter(sam, weights_sha256=""), Recipe(**options))
    assert len(result.masks) > 5
    generator = mobile_sam.SamAutomaticMaskGenerator(official, output_mode="coco_rle", **options)
    assert_equal(result.masks, generator.generate(image_HW3), image_HW3.shape[:2])
