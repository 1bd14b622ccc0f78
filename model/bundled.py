"""The weights that come with Maskmill: where they lie, and which bytes they are.

Without torch, which takes three seconds to import: a command that only has to name them need not wait for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from model.config import TRAINABLE


@dataclass(frozen=True)
class CheckedWeights:
    """What a checkpoint is, once its keys and shapes are known to fit.

    sha256  hex digest of the file's bytes
    notes   what was taken off or dropped to find the model in it, one sentence each
    family  of the model; `ModelConfig.family`
    layout  whose names its tensors have: released or hugging_face
    """

    sha256: str
    notes: tuple[str, ...] = ()
    family: str = ""
    layout: str = ""


SHA256 = {
    "tiny": "fa5a9e0c71bb0505799f90abcfd8c12ea0d8563c021b1e072aca9a167bd3241b",
    "small": "ddd286753ce80b9ee80cc93aaef74bd992fab21dea577c068420f14a79c38bf5",
}
"""Of the files whose keys, shapes and values the tests have checked. Another file may lie in their place."""
BUNDLED = {name: Path(__file__).parent / "weights" / f"{name}.safetensors" for name in SHA256}


def known_weights(name: str) -> CheckedWeights | None:
    """The bundled weights of `name`, if they are the bytes that were checked when they were made; None leaves it to
    `check_weights`, which opens the file and says what is wrong."""
    try:
        sha256 = hashlib.sha256(BUNDLED[name].read_bytes()).hexdigest()
    except (KeyError, OSError):
        return None
    if sha256 != SHA256[name]:
        return None
    return CheckedWeights(sha256, family=TRAINABLE[name].family, layout="released")
