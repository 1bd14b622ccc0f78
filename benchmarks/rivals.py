"""The generators that ours is compared with, each from the checkpoint's released tensors.

Owns the translation of a recipe into each one's own words. On a GPU they want the real torchvision: the stand-in of
reference/official.py removes duplicates on the host. Rivals are imported when they are built, because a machine may
lack some of them.
Legend: H W pixels, B images, S input side, C g g embedding.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peer_masks import PeerMask, rle_counts
from benchmarks.peers import DECODE, ENCODE, Generator, Image_HW3, Seam, Setup
from model.load import load_sam
from pipeline.settings import Recipe

OFFICIAL_OPTIONS = (
    "points_per_side",
    "points_per_batch",
    "pred_iou_thresh",
    "stability_score_thresh",
    "stability_score_offset",
    "box_nms_thresh",
    "crop_n_layers",
    "crop_nms_thresh",
    "crop_overlap_ratio",
    "crop_n_points_downscale_factor",
    "min_mask_region_area",
)
"""The settings of a recipe that the released generator has too, under the same names."""


@dataclass(frozen=True)
class Official:
    """`SamAutomaticMaskGenerator`, of the released package or of a fork with the same interface."""

    sam: Any
    generator: Any
    extra: dict[str, Any]

    def seams(self) -> list[Seam]:
        return _network_seams(self.sam.image_encoder, self.sam.prompt_encoder, self.sam.mask_decoder)

    def generate(self, image_HW3: Image_HW3, recipe: Recipe) -> Any:
        options = {name: getattr(recipe, name) for name in OFFICIAL_OPTIONS} | self.extra
        try:
            return self.generator(self.sam, output_mode="coco_rle", **options).generate(image_HW3)
        except IndexError:  # what the released code does where crops are on and no mask survives in any
            if recipe.crop_n_layers:
                return []
            raise

    def masks(self, answer: Any) -> list[PeerMask]:
        return [
            PeerMask(mask["segmentation"]["counts"], float(mask["predicted_iou"]), float(mask["stability_score"]))
            for mask in answer
        ]

    def funnel(self, answer: Any) -> dict[str, int]:
        return {}


@dataclass(frozen=True)
class Pipeline:
    """The mask-generation pipeline of transformers. It has no clean-up and no NMS inside a crop."""

    pipeline: Any
    torchvision: Callable[[], Any]
    """Context in which torchvision can be imported."""

    def seams(self) -> list[Seam]:
        model = self.pipeline.model
        return _network_seams(model.vision_encoder, model.prompt_encoder, model.mask_decoder)

    def generate(self, image_HW3: Image_HW3, recipe: Recipe) -> Any:
        from PIL import Image

        with self.torchvision():
            return self.pipeline(
                Image.fromarray(image_HW3),
                points_per_batch=recipe.points_per_batch,
                points_per_crop=recipe.points_per_side,
                pred_iou_thresh=recipe.pred_iou_thresh,
                stability_score_thresh=recipe.stability_score_thresh,
                stability_score_offset=recipe.stability_score_offset,
                crops_nms_thresh=recipe.box_nms_thresh,
                crops_n_layers=recipe.crop_n_layers,
                crop_overlap_ratio=recipe.crop_overlap_ratio,
                crop_n_points_downscale_factor=recipe.crop_n_points_downscale_factor,
            )

    def masks(self, answer: Any) -> list[PeerMask]:
        return [
            PeerMask(rle_counts(np.asarray(mask_HW)), float(score))
            for mask_HW, score in zip(answer["masks"], answer["scores"], strict=True)
        ]

    def funnel(self, answer: Any) -> dict[str, int]:
        return {}


class Bf16Encoder(nn.Module):
    """A released image encoder under bf16 autocast, as its users do it; the embedding comes back in float32."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.img_size = encoder, encoder.img_size

    def forward(self, images_B3SS: Tensor) -> Tensor:
        with torch.autocast(images_B3SS.device.type, torch.bfloat16):
            embedding_BCgg: Tensor = self.encoder(images_B3SS)
        return embedding_BCgg.float()


def build_released(setup: Setup, **extra: Any) -> Generator:
    """In float32 without TF32 anywhere, because its masks are what all others are held against; or with bf16."""
    from benchmarks.reference.official import build_official, segment_anything

    sam = _filled(build_official, setup)
    if setup.precision == "bf16":
        sam.image_encoder = Bf16Encoder(sam.image_encoder)
    else:
        torch.backends.cudnn.allow_tf32 = False
    return Official(sam.to(setup.device), segment_anything.SamAutomaticMaskGenerator, extra)


def build_tuned(setup: Setup) -> Generator:
    return build_released(setup, points_per_batch=16)


def build_transformers(setup: Setup) -> Generator:
    from transformers import MaskGenerationPipeline, SamImageProcessorPil

    from benchmarks.reference.hugging_face import hugging_face
    from benchmarks.reference.official import torchvision_stand_in

    sam = load_sam(Path(setup.weights).read_bytes())
    side, processor_class = sam.config.input_side, cast(Any, SamImageProcessorPil)
    processor = processor_class(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    # Without the check for an installed torchvision: the stand-in has what the method calls.
    unchecked = processor_class.post_process_for_mask_generation.__wrapped__
    processor.post_process_for_mask_generation = MethodType(unchecked, processor)
    pipeline = MaskGenerationPipeline(model=hugging_face(sam), image_processor=processor, device=setup.device)
    return Pipeline(pipeline, torchvision_stand_in)


def build_fast(setup: Setup) -> Generator:
    """As its own example and its `sam_model_fast_registry` do: all in bf16, the encoder compiled, 8 batches at once."""
    from benchmarks.reference.official import build_official, torchvision_stand_in

    if setup.fast_checkout is None:
        raise ImportError("no checkout was given (--fast-checkout DIR, a clone of meta-pytorch/segment-anything-fast)")
    if importlib.util.find_spec("triton") is None:
        raise ImportError("segment-anything-fast needs triton, which is not installed here")
    sys.path.insert(0, setup.fast_checkout)
    with torchvision_stand_in():
        fast: Any = importlib.import_module("segment_anything_fast")
        modeling: Any = importlib.import_module("segment_anything_fast.modeling")
    sam = _filled(partial(build_official, modeling=modeling), setup).to(setup.device)
    for part in (sam.image_encoder, sam.prompt_encoder, sam.mask_decoder):
        part.to(torch.bfloat16)
    sam.image_encoder = cast(Any, torch).compile(sam.image_encoder, mode="max-autotune")
    return Official(sam, fast.SamAutomaticMaskGenerator, {"process_batch_size": 8})


def _network_seams(encoder: Any, *decoder: Any) -> list[Seam]:
    return [(encoder, "forward", ENCODE), *((part, "forward", DECODE) for part in decoder)]


def _filled(build: Callable[[Any], Any], setup: Setup) -> Any:
    """A released network of the checkpoint's sizes with its weights in it."""
    ours = load_sam(Path(setup.weights).read_bytes())
    sam = build(ours.config)
    sam.load_state_dict(ours.state_dict())
    return sam
