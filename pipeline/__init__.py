"""Maskmill's pipeline: image shards in, SA-1B-style masks out, once each.

`MaskGenerator` is for single images, `MaskDataset` for an output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api.dataset import MaskDataset
    from pipeline.api.generator import MaskGenerator

__all__ = ["MaskDataset", "MaskGenerator", "__version__"]

__version__ = "0.1.0"
"""Written into every part as `code_version`."""


def __getattr__(name: str) -> Any:
    # On first use: they bring torch, which most of what imports this package does without.
    if name == "MaskGenerator":
        from pipeline.api.generator import MaskGenerator

        return MaskGenerator
    if name == "MaskDataset":
        from pipeline.api.dataset import MaskDataset

        return MaskDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
