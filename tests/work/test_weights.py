"""The weights of a run, found where it begins and loaded where a worker is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from safetensors.torch import load, save

from model.load import BUNDLED
from pipeline.errors import ConfigError
from pipeline.settings import ModelSettings, Settings
from pipeline.storage.store import Store
from pipeline.work.weights import load_model, weights_from_settings
from tests.fakes_run import Notes


def test_a_worker_that_finds_other_weights_than_the_run_began_with_is_refused(store: Store, tmp_path: Path):
    """A path of each machine's own disk: half of the masks would be another model's."""
    bytes_here = BUNDLED["tiny"].read_bytes()
    (tmp_path / "tiny.safetensors").write_bytes(bytes_here)
    model = ModelSettings(checkpoint=str(tmp_path / "tiny.safetensors"))
    with pytest.raises(ConfigError, match=r"has sha256 .* on this machine and 000000000000 where the run began"):
        load_model(model, "0" * 64, store)
    weights = weights_from_settings(Settings(model=model), store, progress=Notes())
    assert weights.sha256 == hashlib.sha256(bytes_here).hexdigest()
    assert load_model(model, weights.sha256, store).outputs_per_prompt == 3


def test_a_run_knows_what_of_its_checkpoint_is_not_in_the_model(store: Store, tmp_path: Path):
    """It stands in the plan and in every part."""
    tensors = {f"module.{name}": tensor for name, tensor in load(BUNDLED["tiny"].read_bytes()).items()}
    (tmp_path / "wrapped.safetensors").write_bytes(save(tensors))
    settings = Settings(model=ModelSettings(checkpoint=str(tmp_path / "wrapped.safetensors")))
    assert weights_from_settings(settings, store, progress=Notes()).notes == ("prefix 'module.' of the keys",)
    assert weights_from_settings(Settings(), store, progress=Notes()).notes == ()
