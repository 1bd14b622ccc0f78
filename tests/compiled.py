"""What this machine has compiled of the same sources, for a copy of the package elsewhere: ten seconds less."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.masks.warm_up import warm_up

MASKS = Path(__file__).parent.parent / "pipeline" / "masks"


def compile_here() -> None:
    """So that this repository has what `lend` lends."""
    warm_up()


def lend(package: Path) -> None:
    """To the package `pipeline` in that folder, if it has compiled nothing yet. Other sources would not take it."""
    cache = package / "pipeline" / "masks" / "__pycache__"
    cache.mkdir(exist_ok=True)
    if not any(cache.glob("*.nbi")):
        for compiled in (MASKS / "__pycache__").glob("*.nb?"):
            shutil.copy(compiled, cache)
