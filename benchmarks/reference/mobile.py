"""The released MobileSAM, with fresh random weights: its encoder is the oracle of model/tiny_vit.py.

The package `mobilesam-mirror` 1.0.0 has the code of github.com/ChaoningZhang/MobileSAM at 34bbbfd, file by file. It
takes four names from timm, which is not a dependency of ours. A stand-in has them while that code is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from benchmarks.reference.official import torchvision_stand_in
from benchmarks.reference.stand_in import standing_in

Anything = TypeVar("Anything")


class DropPath(torch.nn.Module):
    """timm's, which is made with a share to drop and does nothing in evaluation."""

    def __init__(self, drop_prob: float | None = None) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def to_2tuple(value: Anything) -> tuple[Anything, Anything]:
    """timm's, for one number."""
    return value, value


def register_model(model: Callable[..., Any]) -> Callable[..., Any]:
    """timm's, without a registry."""
    return model


@contextmanager
def timm_stand_in() -> Generator[None]:
    """It is there for the duration of the block."""
    layers = {"DropPath": DropPath, "to_2tuple": to_2tuple, "trunc_normal_": torch.nn.init.trunc_normal_}
    names: dict[str, dict[str, Any]] = {
        "timm": {},
        "timm.models": {},
        "timm.models.layers": layers,
        "timm.models.registry": {"register_model": register_model},
    }
    with standing_in(names):
        yield


with torchvision_stand_in(), timm_stand_in():
    mobile_sam: Any = importlib.import_module("mobile_sam")
    _tiny_vit: Any = importlib.import_module("mobile_sam.modeling.tiny_vit_sam")


def build_mobile() -> Any:
    """The released `Sam` with TinyViT (seed torch yourself), ready to predict."""
    return mobile_sam.sam_model_registry["vit_t"]().eval().requires_grad_(requires_grad=False)


class SmallEncoder(torch.nn.Module):
    """Its encoder for images of another side: the released `forward` knows 1024 alone."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.img_size = side
        self.released: Any = _tiny_vit.TinyViT(
            img_size=side,
            embed_dims=[64, 128, 160, 320],
            depths=[2, 2, 6, 2],
            num_heads=[2, 4, 5, 10],
            window_sizes=[7, 7, 14, 7],
            drop_path_rate=0.0,
        )
        self.eval().requires_grad_(requires_grad=False)

    def before_neck(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """(B, C, g, g): what the released `forward` does, with the map's own side."""
        x = self.released.patch_embed(images_B3SS)
        for layer in self.released.layers:
            x = layer(x)
        side = self.img_size // 16
        return x.transpose(1, 2).unflatten(2, (side, side))

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        return self.released.neck(self.before_neck(images_B3SS))
