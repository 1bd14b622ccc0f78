"""Maskmill's pipeline: image shards in, SA-1B-style masks out, once each. `MaskGenerator` is for single images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api.generator import MaskGenerator

__all__ = ["MaskGenerator", "__version__"]

__version__ = "0.1.0"
"""Written into every part as `code_version`."""


def __getattr__(name: str) -> Any:
    # On first use: it brings torch, which most of what imports this package does without.
    if name == "MaskGenerator":
        from pipeline.api.generator import MaskGenerator

        return MaskGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
