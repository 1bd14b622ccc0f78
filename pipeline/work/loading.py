"""What a run knows of its model before any is loaded: which weights they are, and how a worker turns them into masks.

Owns this seam alone, without torch, so that a driver need not import it. weights.py keeps it for real models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.settings import Recipe, Settings
from pipeline.storage.store import Store
from pipeline.work.chunk import GenerateMasks


class LoadGenerator(Protocol):
    """How a worker gets its model, of whatever kind: travels to the worker pickled and is called there once."""

    def __call__(self, store: Store, recipe: Recipe, /, *, threads: int, shared: Path | None = None) -> GenerateMasks:
        """threads  of torch on the CPU; sums depend on it
        shared   where the node's workers may leave each other what they have read from the store
        """
        ...


@dataclass(frozen=True)
class Weights:
    """What the model is and how a worker gets it.

    sha256  of the checkpoint; part of the plan
    notes   what of its file is not in the model, one sentence each; part of the plan if there are any
    family  of the model, and `layout`, whose names the tensors in the file have; part of the plan
    """

    sha256: str
    load: LoadGenerator
    notes: tuple[str, ...] = ()
    family: str = ""
    layout: str = ""


FindWeights = Callable[[Settings, Store], Weights]
