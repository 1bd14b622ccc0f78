"""The weights that a training starts from, and what is taken off them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.opening import CheckpointError
from model.sam import Sam
from model.training.calibrate import Calibration, apply
from model.training.export import export_weights
from model.training.loop import Training
from tests.training.conftest import SMALL
from tests.training.mini import MINI, MINI_2


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Sam, str]:
    """A model, and the file of its weights."""
    torch.manual_seed(4)
    sam = Sam(MINI)
    export_weights(sam, tmp_path / "exported.safetensors", notes={})
    return sam, str(tmp_path / "exported.safetensors")


def test_a_training_starts_from_the_weights_before_their_calibration(tmp_path: Path) -> None:
    """Logits that were made decisive for the thresholds learn little where they are wrong."""
    sam = Sam(MINI)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    apply(sam, Calibration(4.0, 1.3, -0.2))
    note = '{"logit_factor": 4.0, "iou_slope": 1.3, "iou_offset": -0.2}'
    export_weights(sam, tmp_path / "calibrated.safetensors", notes={"calibration": note})
    training = Training(replace(SMALL, start=str(tmp_path / "calibrated.safetensors")))
    for name, value in training.sam.state_dict().items():
        assert torch.allclose(value, before[name], atol=1e-3), name


def test_a_new_encoder_starts_with_the_decoder_of_another_model(exported: tuple[Sam, str]) -> None:
    """A decoder that has learned what points mean saves a new encoder that part of the training."""
    sam, path = exported
    training = Training(replace(SMALL, model=MINI_2.name, start_decoder=path))
    given, fresh = sam.state_dict(), Training(replace(SMALL, model=MINI_2.name)).sam.state_dict()
    for name, value in training.sam.state_dict().items():
        wanted = fresh[name] if name.startswith("image_encoder.") or name not in given else given[name]
        assert torch.allclose(value, wanted, atol=1e-3), name
        assert torch.equal(value, training.average[name]), name


def test_weights_of_other_sizes_are_no_start(exported: tuple[Sam, str], tmp_path: Path) -> None:
    """They would train, and with weights in places where they mean nothing."""
    _, path = exported
    with pytest.raises(CheckpointError, match="another family"):
        Training(replace(SMALL, model=MINI_2.name, start=path))
    wide = Sam(replace(MINI, decoder_dim=128))
    export_weights(wide, tmp_path / "wide.safetensors", notes={})
    with pytest.raises(CheckpointError, match=r"decoder_dim=128 instead of 64"):
        Training(replace(SMALL, start=str(tmp_path / "wide.safetensors")))
    with pytest.raises(CheckpointError, match=r"is \(2, 64\) in .* and \(2, 32\) here"):
        Training(replace(SMALL, model=MINI_2.name, start_decoder=str(tmp_path / "wide.safetensors")))
