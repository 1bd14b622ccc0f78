"""Crops through the image encoder, and the part of the decoder that their prompts share, for a GPU's tensor cores.

Owns the sizes of batches, and that each is a CUDA graph once it was used. A batch is filled up to one of few sizes, so
that no encoding depends on its neighbours: rows of a product depend on its shape. Which size a crop gets follows from
how many are asked at once.

Legend: B crops of a batch, S input side, C channels, g embedding cells a side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor

from model.graphs import Graphs
from model.image_encoder import ImageEncoder
from model.precisions import FORMS, Form
from model.sam import Sam
from model.shared_image import SharedImage
from model.transfers import Pixels, on_device

SIZES = 1, 3, 7
"""Of batches. The 21 crops of `sa1b` are three of 7; `sam` has one crop. A product of one crop has 4096 rows, which are
160 tiles of 128 x 256 for the 132 cores of an H100: two rounds, the second one of 28."""
GPU_CROPS = SIZES[-1]
"""Crops to hand to a GPU at once."""

Crops = Sequence[Pixels]
Share = Callable[[Tensor], SharedImage]
Encoding = tuple[SharedImage, Tensor]
"""What the prompts of a crop have in common, and its embedding (1, C, g, g)."""


class Batches(Protocol):
    """What `batches_for` gives."""

    def encode(self, crops_HW3: Crops, resized_hw: Sequence[tuple[int, int]]) -> list[Encoding]:
        """RGB crops of any sizes -> one each."""
        ...

    def spare_memory(self) -> None:
        """Give back what only saves time, and do not take it again."""
        ...


def batches_for(sam: Sam, share: Share, precision: str) -> Batches | None:
    """None where crops pass the encoder one by one: on a CPU, in fp32, with another family's encoder, without Triton.

    share  (1, C, g, g) -> what the prompts of a crop have in common
    """
    plain = sam.pixel_mean.device.type == "cpu" or precision not in FORMS
    if plain or not isinstance(sam.image_encoder, ImageEncoder) or find_spec("triton") is None:
        return None
    return CropBatches(sam, share, FORMS[precision])


class CropBatches:
    """See `Batches`."""

    def __init__(self, sam: Sam, share: Share, form: Form) -> None:
        from model.fused_encoder import FusedEncoder, standardised  # who has no GPU never imports Triton

        self._sam, self._share = sam, share
        self._encoder, self._standardised = FusedEncoder(cast(ImageEncoder, sam.image_encoder), form), standardised
        self._device = sam.pixel_mean.device
        self._graphs = Graphs[Tensor, list[Encoding]](self._device)

    def spare_memory(self) -> None:
        self._graphs.give_up()

    def encode(self, crops_HW3: Crops, resized_hw: Sequence[tuple[int, int]]) -> list[Encoding]:
        encodings: list[Encoding] = []
        for start in range(0, len(crops_HW3), GPU_CROPS):
            batch = slice(start, start + GPU_CROPS)
            images_B3SS = self._images(crops_HW3[batch], resized_hw[batch])
            encodings += self._encoded(images_B3SS)[: len(crops_HW3[batch])]
        return encodings

    def _images(self, crops_HW3: Crops, resized_hw: Sequence[tuple[int, int]]) -> Tensor:
        """Filled up with the last crop."""
        B = next(size for size in SIZES if size >= len(crops_HW3))
        S = self._sam.config.input_side
        images_B3SS = torch.empty(B, 3, S, S, device=self._device)
        for crop_HW3, hw, image_3SS in zip(crops_HW3, resized_hw, images_B3SS, strict=False):
            self._standardised(on_device(crop_HW3, self._device), hw, self._sam, image_3SS)
        if len(crops_HW3) < B:
            images_B3SS[len(crops_HW3) :] = images_B3SS[len(crops_HW3) - 1]
        return images_B3SS

    def _encoded(self, images_B3SS: Tensor) -> list[Encoding]:
        if not self._graphs.wanted:
            return self.computed(images_B3SS)
        return self._graphs.of(len(images_B3SS), self.computed, images_B3SS)(images_B3SS)

    def computed(self, images_B3SS: Tensor) -> list[Encoding]:
        """Kernel by kernel."""
        return [(self._share(embedding_1Cgg), embedding_1Cgg) for embedding_1Cgg in self._encoder(images_B3SS).split(1)]
