"""Checkpoint bytes -> a checked model, on its device and in its precision, ready to run.

Reads the released .pth layouts, Hugging Face's safetensors (or .bin) layouts and the bundled weights, also where a
trainer wrapped them. Nothing in a checkpoint is executed, and no tensor is left out but by its exact name, or by that
of the part of a larger model that it belongs to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from model import sam2_layouts, sam3_layouts
from model.bundled import BUNDLED, CheckedWeights
from model.config import MODELS, HieraConfig, ModelConfig
from model.extras import without_extras
from model.first_values import without_first_values
from model.foreign import foreign
from model.layouts import from_hugging_face, infer_config, is_hugging_face
from model.opening import CheckpointError, open_checkpoint
from model.precisions import PRECISIONS
from model.sam import Sam
from model.segmenter import TorchSegmenter
from model.wrapped import take_off

__all__ = [
    "BUNDLED",
    "CheckedWeights",
    "CheckpointError",
    "check_weights",
    "load_sam",
    "load_segmenter",
    "resolve_device",
]


@dataclass(frozen=True)
class _Checked:
    """A checkpoint's tensors under our names, the sizes that they fit, what was left out, and the file's layout."""

    tensors: dict[str, Tensor]
    config: ModelConfig
    notes: tuple[str, ...]
    layout: str


def read_checkpoint(name: str, checkpoint: bytes | None) -> bytes:
    """The bytes to load: the given ones, or the bundled file of `name`.

    raises  CheckpointError if `name` is unknown, or has no bundled weights and none were given
    """
    if name not in MODELS:
        raise CheckpointError(f"there is no model named {name!r}; choose one of {', '.join(MODELS)}")
    if checkpoint is not None:
        return checkpoint
    if name not in BUNDLED:
        raise CheckpointError(
            f"model {name} comes without weights: set model.checkpoint to its file (docs/models.md says where it is)"
        )
    try:
        return BUNDLED[name].read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{BUNDLED[name]} is missing from this installation; install Maskmill again") from error


def check_weights(name: str, checkpoint: bytes | None = None) -> CheckedWeights:
    """Whether the checkpoint fits `name`.

    raises  CheckpointError as `load_segmenter` does; no model is built
    """
    data = read_checkpoint(name, checkpoint)
    checked = _checked(data, MODELS[name])
    return CheckedWeights(hashlib.sha256(data).hexdigest(), checked.notes, checked.config.family, checked.layout)


def load_segmenter(
    *, name: str, checkpoint: bytes | None = None, device: str = "cpu", precision: str = "fp32"
) -> TorchSegmenter:
    """Load `name` on `device` (a torch device, or auto for CUDA where there is one).

    precision  one of PRECISIONS
    raises     CheckpointError for unknown names, unusable devices, unreadable files, wrong keys or sizes;
               KeyError for an unknown precision
    """
    encoder_dtype = PRECISIONS[precision]
    data = read_checkpoint(name, checkpoint)
    target = resolve_device(device)
    sam = load_sam(data, expected=MODELS[name]).to(target)
    # TF32 drops 13 bits of every product; float32 here means float32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # Sums of bfloat16 products stay float32 where a library cuts one into parts.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    # Not the convolutions: the pixels of a patch need more than the 8 bits of bfloat16.
    for layer in sam.image_encoder.modules():
        if isinstance(layer, nn.Linear):
            layer.to(encoder_dtype)
    return TorchSegmenter(sam, weights_sha256=hashlib.sha256(data).hexdigest(), precision=precision)


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


def load_sam(data: bytes, *, expected: ModelConfig | None = None) -> Sam:
    """A float32 Sam on the CPU from a checkpoint's bytes, its sizes read off the tensors.

    expected  the sizes that the caller asked for; decoder depths 2 and 3 are both accepted
    raises    CheckpointError naming every key or shape that differs
    """
    checked = _checked(data, expected)
    with without_first_values():
        sam = Sam(checked.config)
    sam.load_state_dict({name: tensor.float() for name, tensor in checked.tensors.items()})
    return sam.eval()


def _checked(data: bytes, expected: ModelConfig | None) -> _Checked:
    bare = take_off(open_checkpoint(data))
    if what := foreign(bare.tensors, known=MODELS):
        raise CheckpointError(what)
    released, left_out, layout = _by_our_names(bare.tensors)
    config = _of_release(_config_of(released, expected), sam2_layouts.release_of(bare.tensors), expected)
    wanted = _wanted(config)
    tensors, dropped = without_extras(released, config, wanted=wanted)
    _check_keys(tensors, wanted)
    _check_finite(tensors)
    return _Checked(tensors, config, (*bare.notes, *left_out, *dropped), layout)


def _by_our_names(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """And what was left out, and the layout of the file."""
    if sam3_layouts.is_sam_3(tensors):
        return *sam3_layouts.ours(tensors), _layout(hugging_face=sam3_layouts.is_hugging_face(tensors))
    if sam2_layouts.is_sam_2(tensors):
        return *sam2_layouts.ours(tensors), _layout(hugging_face=sam2_layouts.is_hugging_face(tensors))
    if is_hugging_face(tensors):
        return from_hugging_face(tensors), (), _layout(hugging_face=True)
    return tensors, (), _layout(hugging_face=False)


def _layout(*, hugging_face: bool) -> str:
    return "hugging_face" if hugging_face else "released"


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


def _wanted(config: ModelConfig) -> dict[str, Tensor]:
    """Names and shapes of a model of these sizes, without its memory."""
    with torch.device("meta"), without_first_values():
        return Sam(config).state_dict()


def _config_of(released: Mapping[str, Tensor], expected: ModelConfig | None) -> ModelConfig:
    try:
        config = infer_config(released, expected=expected)
    except CheckpointError:
        raise
    except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError, RuntimeError) as error:
        if expected is not None and any(name in _wanted(expected) for name in released):
            _check_keys(released, _wanted(expected))
        raise CheckpointError(
            f"the checkpoint is not Segment Anything: {error} is missing or of another kind "
            f"(it has {len(released)} tensors, for example {', '.join(sorted(released)[:3])})"
        ) from error
    if expected is None:
        return config
    if wrong := _differing(config, expected):
        fits = f"; it fits model={config.name}" if config.name in MODELS else ""
        raise CheckpointError(f"the checkpoint is not a {expected.name}: {', '.join(wrong)}{fits}")
    return replace(config, name=expected.name)


def _of_release(config: ModelConfig, release: str | None, expected: ModelConfig | None) -> ModelConfig:
    """SAM 2 and 2.1 have the same image model; a whole file shows which of them it is."""
    if not isinstance(config, HieraConfig) or release is None or config.name not in MODELS:
        return config
    name = f"sam{release}_{config.name.partition('_')[2]}"
    if expected is not None and expected.name != name:
        raise CheckpointError(f"the checkpoint is not a {expected.name}: it is of SAM {release}; it fits model={name}")
    return replace(config, name=name)


def _differing(config: ModelConfig, expected: ModelConfig) -> list[str]:
    if type(config) is not type(expected):
        return ["it has an image encoder of another family"]
    return [
        f"{size.name}={getattr(config, size.name)} instead of {getattr(expected, size.name)}"
        for size in fields(expected)
        if size.name not in ("name", "decoder_depth") and getattr(config, size.name) != getattr(expected, size.name)
    ]


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
