"""The bytes of a checkpoint file -> what it holds, without executing anything of it.

Owns how a file is opened, and what its user is told if it cannot be. What its tables mean, `wrapped` knows.
"""

from __future__ import annotations

import argparse
import io
import pickle
import re
import zipfile
from dataclasses import dataclass

import torch

WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state")
"""Keys under which trainers keep a model's weights."""
_OLD_PICKLE = b"\x80\x02"
"""How the files of torch before 1.6 begin."""
_NOT_WEIGHTS = (
    (
        rb"version https://git-lfs",
        "a pointer of Git LFS, not the file it points to; run git lfs pull where it was cloned, or download it",
    ),
    (rb"\s*<(!|html|\?xml)", "a web page: the download was refused or led to a form; download it again in a browser"),
    (rb"\s*\{", "a JSON file, such as an index of shards or a configuration; give the one file with the tensors"),
)


class CheckpointError(ValueError):
    """The weights cannot be used; the message says what differs and what to do."""


@dataclass(frozen=True)
class Opened:
    """content     what the file holds
    expression  the Python that gives it, for errors that tell how to change the file
    """

    content: object
    expression: str


def open_checkpoint(data: bytes) -> Opened:
    """raises  CheckpointError for a file that is damaged, no checkpoint, or more than data"""
    if zipfile.is_zipfile(io.BytesIO(data)) or data[:2] == _OLD_PICKLE:
        return Opened(_read_torch(data), "torch.load('old.pth', weights_only=True)")
    for pattern, what in _NOT_WEIGHTS:
        if re.match(pattern, data[:100]):
            raise CheckpointError(f"the checkpoint is {what}")
    return Opened(_read_safetensors(data), "safetensors.torch.load_file('old.safetensors')")


def _read_torch(data: bytes) -> object:
    try:
        # The options of a training's command line, which many trainers keep: a plain record of values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(_classes(data, str(error)))) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                "the checkpoint is a TorchScript program, not a table of tensors, and was not opened; if you trust who "
                "made it, save its weights: "
                + _command("torch.save(torch.jit.load('old.pth', 'cpu').state_dict(), 'new.pth')")
            ) from error
        raise CheckpointError(f"the checkpoint is damaged or cut short ({error}); fetch it again") from error


def _classes(data: bytes, told: str) -> list[str]:
    """What a file would run besides building tensors: all of it, or in files of torch before 1.6 the first."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data)))
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        return re.findall(r"GLOBAL ([\w.]+)", told)[:1]


def _refusal(classes: list[str]) -> str:
    if not classes:
        return (
            "the checkpoint holds pickled code beside its tensors, or is damaged, and was not opened; fetch it again, "
            "or take it as safetensors"
        )
    named = ", ".join(classes[:6]) + (f" and {len(classes) - 6} more" if len(classes) > 6 else "")
    if any(name.startswith("torch.nn.") for name in classes):
        return (
            f"the checkpoint is a whole module, which is pickled code ({named}), and was not opened; if you trust who "
            "made it, save its weights where those classes are installed: "
            + _command("torch.save(torch.load('old.pth', weights_only=False).state_dict(), 'new.pth')")
        )
    keep = f"{{k: v for k, v in c.items() if torch.is_tensor(v) or k in {WRAPPERS}}}"
    return (
        f"the checkpoint holds pickled code beside its tensors ({named}), and was not opened; if you trust who made "
        "it, save its weights alone: "
        + _command(f"c = torch.load('old.pth', weights_only=False); torch.save({keep}, 'new.pth')")
    )


def _command(statement: str) -> str:
    return f'python -c "import torch; {statement}"'


def _read_safetensors(data: bytes) -> object:
    # Imported here so that model/ imports on a bare machine that brings its own .pth.
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"the checkpoint is neither a torch .pth nor a safetensors file, or it is cut short ({error})"
        ) from error
