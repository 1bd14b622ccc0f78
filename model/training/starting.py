"""What a training starts from: weights of the same model, or another's decoder beside an encoder that is new."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from model.config import ModelConfig
from model.load import load_sam
from model.opening import CheckpointError
from model.sam import Sam
from model.training.calibrate import calibration_of, undo

ENCODER = "image_encoder."


def weights_of(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of a file, of the same sizes. Of a Hiera the input may be another: its positions are enlarged anyway.

    raises  CheckpointError if a size differs
    """
    return _uncalibrated(path, config).state_dict()


def with_decoder_of(path: Path, sam: Sam) -> dict[str, Tensor]:
    """The weights of `sam`, with those of a file's prompt encoder and decoder in their place; what the file's decoder
    lacks stays as it is. Scores that pass a sigmoid only in one of them are learned anew soon.

    raises  CheckpointError if the decoders differ in size
    """
    wanted = sam.state_dict()
    start = _uncalibrated(path, None)
    if start.config.decoder_heads != sam.config.decoder_heads:
        raise CheckpointError(f"the decoder of {path} has {start.config.decoder_heads} heads")
    found = {name: value for name, value in start.state_dict().items() if name in wanted}
    decoder = {name: value for name, value in found.items() if not name.startswith(ENCODER)}
    for name, value in decoder.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(f"{name} is {tuple(value.shape)} in {path} and {tuple(wanted[name].shape)} here")
    return wanted | decoder


def _uncalibrated(path: Path, expected: ModelConfig | None) -> Sam:
    """The weights as a training left them: calibrated logits would be decisive where they should still learn."""
    sam, calibration = load_sam(path.read_bytes(), expected=expected), calibration_of(path)
    if calibration is not None:
        undo(sam, calibration)
    return sam
