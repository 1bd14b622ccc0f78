"""The generators that are compared: each built once from one checkpoint file, then asked for an image's masks.

Every peer gets the released weights in a .pth file, a device and a `Recipe`. Ours is here, the others are in `rivals`.
Does not measure.
Legend: H W pixels.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.peer_masks import PeerMask
from model.load import load_segmenter
from pipeline.masks.generator import generate_masks
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

    def funnel(self, answer: Any) -> dict[str, int]:
        """What became of the candidates, where the peer tells it; else empty."""
        ...


@dataclass(frozen=True)
class Setup:
    """What a peer is built from."""

    model: str
    weights: str
    """Path of a .pth file under the released names."""
    fast_checkout: str | None = None
    device: str = "cpu"
    """cpu or cuda."""
    precision: str = "fp32"
    """Of the image encoder's products; the peer says which."""


@dataclass(frozen=True)
class Peer:
    """One column of the comparison. `factory` is `module:function`, called with a `Setup` in the peer's process."""

    name: str
    title: str
    factory: str
    environment: dict[str, str] = field(default_factory=dict[str, str])
    precision: str = "fp32"

    def build(self, setup: Setup) -> Generator:
        module, function = self.factory.split(":")
        factory: Callable[[Setup], Generator] = getattr(importlib.import_module(module), function)
        return factory(replace(setup, precision=self.precision))


KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**46),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""glibc keeps what was freed: no page faults for the next large temporary."""

PEERS = {
    peer.name: peer
    for peer in (
        Peer("released", "segment_anything 1.0, as released", "benchmarks.rivals:build_released"),
        Peer(
            "released_bf16",
            "segment_anything 1.0, encoder under bf16 autocast",
            "benchmarks.rivals:build_released",
            precision="bf16",
        ),
        Peer(
            "tuned",
            "segment_anything 1.0, tuned (16 points a batch, malloc keeps memory)",
            "benchmarks.rivals:build_tuned",
            KEEP_MEMORY,
        ),
        Peer("transformers", "transformers, mask-generation pipeline", "benchmarks.rivals:build_transformers"),
        Peer("fast", "segment-anything-fast", "benchmarks.rivals:build_fast", precision="bf16"),
        Peer("ours", "Maskmill", "benchmarks.peers:build_ours"),
        Peer("ours_bf16", "Maskmill, model.precision=bf16", "benchmarks.peers:build_ours", precision="bf16"),
    )
}


@dataclass(frozen=True)
class Ours:
    segmenter: Any

    def seams(self) -> list[Seam]:
        return [(self.segmenter, "encode", ENCODE), (self.segmenter, "decode", DECODE)]

    def generate(self, image_HW3: Image_HW3, recipe: Recipe) -> Any:
        return generate_masks([image_HW3], self.segmenter, recipe)

    def masks(self, answer: Any) -> list[PeerMask]:
        [image] = answer
        return [PeerMask(mask.counts, mask.predicted_iou, mask.stability_score) for mask in image.masks]

    def funnel(self, answer: Any) -> dict[str, int]:
        [image] = answer
        return asdict(image.funnel)


def build_ours(setup: Setup) -> Generator:
    checkpoint = Path(setup.weights).read_bytes()
    return Ours(load_segmenter(name=setup.model, checkpoint=checkpoint, device=setup.device, precision=setup.precision))
