"""The generators that are compared: each built once from one checkpoint file, then asked for an image's masks.

Every peer gets the released weights in a .pth file, torch on the CPU, and a `Recipe`. Owns the
translation of a recipe into each peer's own words. Does not measure.
Legend: H W pixels.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from benchmarks.agreement import PeerMask, rle_counts
from pipeline.settings import Recipe

Image_HW3 = npt.NDArray[np.uint8]


ENCODE, DECODE = "encode", "prompts"
Seam = tuple[Any, str, str]
"""(object, name of its method, stage that the method's time belongs to)."""


class Generator(Protocol):
    """A peer in its process. Only `generate` is measured."""

    def seams(self) -> list[Seam]:
        """Where encoding and decoding can be timed."""
        ...

    def generate(self, image_HW3: Image_HW3, recipe: Recipe) -> Any:
        """All masks of an RGB image in the peer's own form."""
        ...

    def masks(self, answer: Any) -> list[PeerMask]:
        """That answer in the common form."""
        ...


@dataclass(frozen=True)
class Setup:
    """What a peer is built from."""

    model: str
    weights: str
    """Path of a .pth file under the released names."""
    fast_checkout: str | None = None


@dataclass(frozen=True)
class Peer:
    """One column of the comparison. `factory` is `module:function`, called with a `Setup` in the peer's process."""

    name: str
    title: str
    factory: str
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def build(self, setup: Setup) -> Generator:
        module, function = self.factory.split(":")
        factory: Callable[[Setup], Generator] = getattr(importlib.import_module(module), function)
        return factory(setup)


KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**46),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""glibc keeps what was freed: no page faults for the next large temporary."""

PEERS = {
    peer.name: peer
    for peer in (
        Peer("released", "segment_anything 1.0, as released", "benchmarks.peers:build_released"),
        Peer(
            "tuned",
            "segment_anything 1.0, tuned (16 points a batch, malloc keeps memory)",
            "benchmarks.peers:build_tuned",
            KEEP_MEMORY,
        ),
        Peer("transformers", "transformers, mask-generation pipeline", "benchmarks.peers:build_transformers"),
        Peer("fast", "segment-anything-fast", "benchmarks.peers:build_fast"),
        Peer("ours", "Maskmill", "benchmarks.peers:build_ours"),
        Peer("ours_bf16", "Maskmill, model.precision=bf16", "benchmarks.peers:build_ours_bf16"),
    )
}

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


@dataclass(frozen=True)
class Ours:
    segmenter: Any

    def seams(self) -> list[Seam]:
        return [(self.segmenter, "encode", ENCODE), (self.segmenter, "decode", DECODE)]

    def generate(self, image_HW3: Image_HW3, recipe: Recipe) -> Any:
        from pipeline.masks.generator import generate_masks

        return generate_masks([image_HW3], self.segmenter, recipe)

    def masks(self, answer: Any) -> list[PeerMask]:
        [image] = answer
        return [PeerMask(mask.counts, mask.predicted_iou, mask.stability_score) for mask in image.masks]


def build_released(setup: Setup, **extra: Any) -> Generator:
    from tests.official import build_official, segment_anything

    sam = _filled(build_official, setup)
    return Official(sam, segment_anything.SamAutomaticMaskGenerator, extra)


def build_tuned(setup: Setup) -> Generator:
    return build_released(setup, points_per_batch=16)


def build_transformers(setup: Setup) -> Generator:
    from transformers import MaskGenerationPipeline, SamImageProcessorPil

    from model.load import load_sam
    from tests.model.test_equality import hugging_face
    from tests.official import torchvision_stand_in

    sam = load_sam(Path(setup.weights).read_bytes())
    side, processor_class = sam.config.input_side, cast(Any, SamImageProcessorPil)
    processor = processor_class(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    # Without the check for an installed torchvision: the stand-in has what the method calls.
    unchecked = processor_class.post_process_for_mask_generation.__wrapped__
    processor.post_process_for_mask_generation = MethodType(unchecked, processor)
    pipeline = MaskGenerationPipeline(model=hugging_face(sam), image_processor=processor, device="cpu")
    return Pipeline(pipeline, torchvision_stand_in)


def build_fast(setup: Setup) -> Generator:
    from tests.official import build_official, torchvision_stand_in

    if setup.fast_checkout is None:
        raise ImportError("no checkout was given (--fast-checkout)")
    sys.path.insert(0, setup.fast_checkout)
    with torchvision_stand_in():
        fast: Any = importlib.import_module("segment_anything_fast")
        modeling: Any = importlib.import_module("segment_anything_fast.modeling")
    sam = _filled(partial(build_official, modeling=modeling), setup)
    return Official(sam, fast.SamAutomaticMaskGenerator, {"process_batch_size": 64})


def build_ours(setup: Setup, **extra: Any) -> Generator:
    from model.load import load_segmenter

    checkpoint = Path(setup.weights).read_bytes()
    return Ours(load_segmenter(name=setup.model, checkpoint=checkpoint, device="cpu", **extra))


def build_ours_bf16(setup: Setup) -> Generator:
    return build_ours(setup, precision="bf16")


def _network_seams(encoder: Any, *decoder: Any) -> list[Seam]:
    return [(encoder, "forward", ENCODE), *((part, "forward", DECODE) for part in decoder)]


def _filled(build: Callable[[Any], Any], setup: Setup) -> Any:
    """A released network of the checkpoint's sizes with its weights in it."""
    from model.load import load_sam

    ours = load_sam(Path(setup.weights).read_bytes())
    sam = build(ours.config)
    sam.load_state_dict(ours.state_dict())
    return sam
