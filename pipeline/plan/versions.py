"""The versions of what shapes the output: kept in a plan, said by every part, compared when a run is resumed.

Owns which packages these are; other_versions.py has the rule for a resume. The commit is not among them: a checkout
has the version of its package, and a change of masks is a change of that version. What stands behind a `+`, such as
torch's +cpu and +cu126, is left out: that is the class of device, which masks depend on anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

from pipeline import __version__

PACKAGES = ("torch", "numpy", "numba", "pillow", "tifffile", "imagecodecs", "pyarrow")
"""From bytes to pixels, from pixels to masks, from masks to parts. OpenCV and pycocotools only train and evaluate."""
OF_FAMILY = {"sam3": ("transformers",)}
"""What else shapes the output with a model of this family."""

Versions = Mapping[str, str]


@cache
def versions_here(family: str = "") -> Versions:
    """Of this process and for models of this family, by the names of the packages."""
    packages = (*PACKAGES, *OF_FAMILY.get(family, ()))
    return MappingProxyType({"maskmill": __version__} | {name: _version(name) for name in packages})


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"


def differing(planned: Versions, now: Versions) -> str:
    """What is not as planned: `torch 2.12.0 -> 2.13.0, ...`; "" if nothing is."""
    names = sorted(planned.keys() | now.keys())
    pairs = [(name, planned.get(name, "none"), now.get(name, "none")) for name in names]
    return ", ".join(f"{name} {before} -> {after}" for name, before, after in pairs if before != after)
