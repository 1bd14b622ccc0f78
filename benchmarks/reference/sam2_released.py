"""The released SAM 2, with our weights: its generator and its network are the oracles of ours.

The package `sam2` 1.1.0 has the code of github.com/facebookresearch/sam2 at 2b90b9f. Import this in a process of its
own: importing `sam2` takes Hydra for itself. torchvision is not a dependency of ours; where it is missing, a stand-in
has the five names that are taken from it.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.reference.official import batched_nms, box_area
from benchmarks.reference.stand_in import standing_in
from model import sam2_layouts
from model.config import HieraConfig
from model.first_values import without_first_values
from model.sam import Sam

FILES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


class ToTensor:
    """torchvision's, for 8-bit RGB."""

    def __call__(self, image_HW3: npt.NDArray[np.uint8]) -> Tensor:
        return cast(Any, torch).from_numpy(image_HW3.transpose(2, 0, 1)).contiguous().float().div(255)


class Resize(nn.Module):
    """torchvision's for tensors: bilinear, antialiased."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x[None], size=[self.height, self.width], mode="bilinear", antialias=True)[0]


class Normalize(nn.Module):
    """torchvision's."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean, self.std = torch.tensor(mean).reshape(-1, 1, 1), torch.tensor(std).reshape(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.sub(self.mean).div(self.std)


@contextmanager
def _torchvision() -> Generator[None]:
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    names: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": batched_nms, "box_area": box_area},
        "torchvision.transforms": {"ToTensor": ToTensor, "Resize": Resize, "Normalize": Normalize},
    }
    with standing_in(names):
        yield


class _WithoutMemory(TorchFunctionMode):
    """New tensors are on `meta`, but for those that the released constructors compute with.

    These are small, and on `meta` a product imports torch's compiler: 2 s of CPU time.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.tensor):
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


with _torchvision():
    _building: Any = importlib.import_module("sam2.build_sam")
    _generating: Any = importlib.import_module("sam2.automatic_mask_generator")


def bare(file: str) -> Any:
    """The released model as one of its configurations describes it, without its memory."""
    with without_first_values(), _WithoutMemory():
        return _building.build_sam2(file, device="meta")


def build(config: HieraConfig) -> Any:
    """The released `SAM2Base` of these sizes with fresh weights, of the release that the name begins with."""
    family, _, size = config.name.partition("_")
    trunk = {
        "embed_dim": config.dims[0],
        "num_heads": config.heads,
        "stages": list(config.depths),
        "global_att_blocks": list(config.global_blocks),
        "window_spec": list(config.windows),
        "window_pos_embed_bkg_spatial_size": [config.background] * 2,
    }
    overrides = [f"++model.image_encoder.trunk.{key}={value}" for key, value in trunk.items()]
    overrides += [
        f"model.image_encoder.neck.backbone_channel_list={list(reversed(config.dims))}",
        f"model.image_size={config.input_side}",
    ]
    file = f"configs/{family}/{family}_hiera_{FILES.get(size, 't')}.yaml"
    return _building.build_sam2(file, device="cpu", hydra_overrides_extra=overrides)


def with_weights(sam: Sam) -> Any:
    """The released network with the weights of ours, and with its own where images have no part."""
    if not isinstance(sam.config, HieraConfig):
        raise TypeError(f"{sam.config.name} is no SAM 2")
    theirs = build(sam.config)
    mine = sam2_layouts.released(sam.state_dict())
    theirs.load_state_dict(theirs.state_dict() | mine)
    return theirs.requires_grad_(requires_grad=False)


def generator(model: Any, options: Mapping[str, Any]) -> Any:
    """The released `SAM2AutomaticMaskGenerator`, with masks as RLE."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.script, which it calls
        made = _generating.SAM2AutomaticMaskGenerator(model, output_mode="coco_rle", **options)
    cells = model.image_size // 4
    made.predictor._bb_feat_sizes = [(cells, cells), (cells // 2, cells // 2), (cells // 4, cells // 4)]
    return made
