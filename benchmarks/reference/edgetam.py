"""transformers' EdgeTamModel of any sizes with random weights: the oracle of model/repvit.py.

Its backbone comes from timm 1.0.31, which imports torchvision at its top; the wheels of torchvision need the torch that
they were built with. So timm's RepViT is imported alone, with stand-ins for the packages around it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch

from benchmarks.reference.hugging_face import randomised
from benchmarks.reference.stand_in import standing_in
from model.config import RepVitConfig


@contextmanager
def timm_in_transformers() -> Generator[None]:
    """transformers' wrapper of timm finds RepViT there and nothing else, for the duration of the block."""
    from transformers.models.timm_wrapper import modeling_timm_wrapper

    found = importlib.util.find_spec("timm")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("timm is not installed: make setup does it")
    [folder] = found.submodule_search_locations
    names: dict[str, dict[str, Any]] = {
        "timm": {"__path__": [folder], "__version__": "1.0.31"},
        "timm.models": {"__path__": [f"{folder}/models"]},
        "timm.data": {"IMAGENET_DEFAULT_MEAN": (), "IMAGENET_DEFAULT_STD": ()},
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.misc": {"FrozenBatchNorm2d": torch.nn.Identity},
    }
    wrapper = cast(Any, modeling_timm_wrapper)
    checks = wrapper.requires_backends
    with standing_in(names):
        timm, repvit = importlib.import_module("timm"), importlib.import_module("timm.models.repvit")

        def create_model(name: str, **options: Any) -> Any:
            return getattr(repvit, name)(**options)

        vars(timm)["create_model"] = create_model
        wrapper.timm, wrapper.requires_backends = timm, _no_checks
        try:
            yield
        finally:
            wrapper.requires_backends = checks


def _no_checks(*_: object) -> None:
    """transformers asks for torchvision too."""


def edgetam_configs(config: RepVitConfig) -> dict[str, Any]:
    """What transformers' EdgeTamConfig and EdgeTamVideoConfig take."""
    from transformers import (
        EdgeTamMaskDecoderConfig,
        EdgeTamPromptEncoderConfig,
        EdgeTamVisionConfig,
        TimmWrapperConfig,
    )

    c = config
    sizes: dict[str, Sequence[int]] = {"embed_dim": c.dims, "depth": c.depths, "out_indices": (0, 1, 2, 3)}
    vision = EdgeTamVisionConfig(
        backbone_config=TimmWrapperConfig(architecture="repvit_m1", model_args={"features_only": True, **sizes}),
        backbone_channel_list=list(reversed(c.dims)),
        backbone_feature_sizes=[[factor * c.grid_side] * 2 for factor in (4, 2, 1)],
        fpn_hidden_size=c.decoder_dim,
    )
    prompts = EdgeTamPromptEncoderConfig(hidden_size=c.decoder_dim, image_size=c.input_side, patch_size=c.patch)
    decoder = EdgeTamMaskDecoderConfig(
        hidden_size=c.decoder_dim, mlp_dim=c.decoder_mlp, iou_head_hidden_dim=c.iou_head_dim
    )
    return {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": decoder}


def hugging_face_edgetam(config: RepVitConfig, *, seed: int) -> Any:
    """Every tensor at random."""
    from transformers import EdgeTamConfig, EdgeTamModel

    with timm_in_transformers():
        return randomised(EdgeTamModel(EdgeTamConfig(**edgetam_configs(config))), seed=seed)


def names_of_a_video_model(config: RepVitConfig) -> set[str]:
    """Of transformers' EdgeTamVideoModel."""
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

    with timm_in_transformers(), torch.device("meta"):
        return set(EdgeTamVideoModel(EdgeTamVideoConfig(**edgetam_configs(config))).state_dict())
