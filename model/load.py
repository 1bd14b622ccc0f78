"""Checkpoint bytes -> a checked model, on its device and in its precision, ready to run.

Reads the released .pth layout, Hugging Face's safetensors (or .bin) layout and the bundled weights. Nothing in a
checkpoint is executed.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from model.config import CONFIGS, SamConfig
from model.layouts import from_hugging_face, infer_config, is_hugging_face
from model.sam import Sam
from model.segmenter import TorchSegmenter
from model.wrapped import SAFETENSORS_FILE, TORCH_FILE, is_table, wrapping

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Names of `model.precision`, and what the encoder's matrix products are computed in."""
BUNDLED = {"tiny": Path(__file__).parent / "weights" / "tiny.safetensors"}


class CheckpointError(ValueError):
    """The weights cannot be used; the message says what differs and what to do."""


def read_checkpoint(name: str, checkpoint: bytes | None) -> bytes:
    """The bytes to load: the given ones, or the bundled file of `name`.

    raises  CheckpointError if `name` is unknown, or has no bundled weights and none were given
    """
    if name not in CONFIGS:
        raise CheckpointError(f"there is no model named {name!r}; choose one of {', '.join(CONFIGS)}")
    if checkpoint is not None:
        return checkpoint
    if name not in BUNDLED:
        raise CheckpointError(
            f"model {name} comes without weights: set model.checkpoint to its file "
            "(the .pth of facebookresearch/segment-anything or the model.safetensors of the same model on Hugging Face)"
        )
    try:
        return BUNDLED[name].read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{BUNDLED[name]} is missing from this installation; install Maskmill again") from error


def checked_sha256(name: str, checkpoint: bytes | None = None) -> str:
    """Hex digest of the checkpoint file's bytes, once its keys and shapes are known to fit `name`.

    raises  CheckpointError as `load_segmenter` does; no model is built
    """
    data = read_checkpoint(name, checkpoint)
    _checked_tensors(data, CONFIGS[name])
    return hashlib.sha256(data).hexdigest()


def load_segmenter(
    *, name: str, checkpoint: bytes | None = None, device: str = "cpu", precision: str = "fp32"
) -> TorchSegmenter:
    """Load `name` on `device` (a torch device, or auto for CUDA where there is one).

    precision  of the image encoder's products, a key of PRECISIONS; all else is float32
    raises     CheckpointError for unknown names, unusable devices, unreadable files, wrong keys or sizes;
               KeyError for an unknown precision
    """
    encoder_dtype = PRECISIONS[precision]
    data = read_checkpoint(name, checkpoint)
    target = resolve_device(device)
    sam = load_sam(data, expected=CONFIGS[name]).to(target)
    # TF32 drops 13 bits of every product; float32 here means float32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for layer in sam.image_encoder.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.to(encoder_dtype)
    return TorchSegmenter(sam, weights_sha256=hashlib.sha256(data).hexdigest(), encoder_dtype=encoder_dtype)


def resolve_device(device: str) -> torch.device:
    """`auto`, `cpu` or `cuda[:n]` -> a device that exists. Raises CheckpointError otherwise."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(f"model.device={device!r} is no device; use auto, cpu or cuda") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(
            f"model.device={device} was asked for, but torch sees no CUDA device; use model.device=cpu"
        )
    return target


def load_sam(data: bytes, *, expected: SamConfig | None = None) -> Sam:
    """A float32 Sam on the CPU from a checkpoint's bytes, its sizes read off the tensors.

    expected  the sizes that the caller asked for; decoder depths 2 and 3 are both accepted
    raises    CheckpointError naming every key or shape that differs
    """
    released, config = _checked_tensors(data, expected)
    sam = Sam(config)
    sam.load_state_dict({name: tensor.float() for name, tensor in released.items()})
    return sam.eval()


def _checked_tensors(data: bytes, expected: SamConfig | None) -> tuple[dict[str, Tensor], SamConfig]:
    """The checkpoint's tensors under their released names, and the sizes that they fit."""
    tensors = _read_tensors(data)
    released = from_hugging_face(tensors) if is_hugging_face(tensors) else tensors
    config = _config_of(released, expected)
    _check_keys(released, _wanted(config))
    _check_finite(released)
    return released, config


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    """One broken value makes every mask's score NaN, which no threshold lets pass: a run without masks, all well."""
    for name, tensor in tensors.items():
        # A sum that is finite has finite terms, and takes no memory; only one that is not asks for a closer look.
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise CheckpointError(
                f"the checkpoint's tensor {name} has {count:,} of {tensor.numel():,} values that are not finite "
                "(NaN or infinite): its training diverged or the file is damaged; take an earlier checkpoint"
            )


def _wanted(config: SamConfig) -> dict[str, Tensor]:
    """Names and shapes of a model of these sizes, without its memory."""
    with torch.device("meta"):
        return Sam(config).state_dict()


def _read_tensors(data: bytes) -> dict[str, Tensor]:
    is_torch_file = zipfile.is_zipfile(io.BytesIO(data)) or data[:2] == b"\x80\x02"
    content = _read_torch(data) if is_torch_file else _read_safetensors(data)
    opened = TORCH_FILE if is_torch_file else SAFETENSORS_FILE
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content, opened = content["model"], f"{opened}['model']"
    if around := wrapping(content, opened=opened):
        raise CheckpointError(around)
    if not is_table(content):
        raise CheckpointError("the checkpoint is not a table of named tensors; give the model's state dict")
    return dict(content)


def _read_torch(data: bytes) -> object:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "the checkpoint holds pickled code beside its tensors, or is damaged, and was not opened; "
            "save only the model's state dict, convert it to safetensors, or fetch it again"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint is damaged or cut short ({error}); fetch it again") from error


def _read_safetensors(data: bytes) -> dict[str, Tensor]:
    # Imported here so that model/ imports on a bare machine that brings its own .pth.
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"the checkpoint is neither a torch .pth nor a safetensors file, or it is cut short ({error})"
        ) from error


def _config_of(released: Mapping[str, Tensor], expected: SamConfig | None) -> SamConfig:
    try:
        config = infer_config(released)
    except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError, RuntimeError) as error:
        if expected is not None and any(name in _wanted(expected) for name in released):
            _check_keys(released, _wanted(expected))
        raise CheckpointError(
            f"the checkpoint is not Segment Anything: {error} is missing or of another kind "
            f"(it has {len(released)} tensors, for example {', '.join(sorted(released)[:3])})"
        ) from error
    if expected is not None:
        wrong = [
            f"{size}={getattr(config, size)} instead of {getattr(expected, size)}"
            for size in SamConfig.__dataclass_fields__
            if size not in ("name", "decoder_depth") and getattr(config, size) != getattr(expected, size)
        ]
        if wrong:
            fits = f"; it fits model={config.name}" if config.name in CONFIGS else ""
            raise CheckpointError(f"the checkpoint is not a {expected.name}: {', '.join(wrong)}{fits}")
    return config


def _check_keys(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in wanted]
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(f"the checkpoint's tensors differ from Segment Anything's: {'; '.join(problems)}")
