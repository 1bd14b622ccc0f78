"""The weights of a run, found where it begins and loaded where a worker is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load, save

from model.bundled import BUNDLED, SHA256, known_weights
from model.load import check_weights
from pipeline.errors import ConfigError
from pipeline.settings import ModelSettings, Settings
from pipeline.storage.store import Store
from pipeline.work.weights import load_model, weights_from_settings
from tests.fakes_run import Notes


def test_a_worker_that_finds_other_weights_than_the_run_began_with_is_refused(store: Store, tmp_path: Path):
    """A path of each machine's own disk: half of the masks would be another model's."""
    bytes_here = BUNDLED["small"].read_bytes()
    (tmp_path / "small.safetensors").write_bytes(bytes_here)
    model = ModelSettings(checkpoint=str(tmp_path / "small.safetensors"))
    with pytest.raises(ConfigError, match=r"has sha256 .* on this machine and 000000000000 where the run began"):
        load_model(model, "0" * 64, store)
    weights = weights_from_settings(Settings(model=model), store, progress=Notes())
    assert weights.sha256 == hashlib.sha256(bytes_here).hexdigest()
    assert load_model(model, weights.sha256, store).outputs_per_prompt == 3


def test_a_run_knows_what_of_its_checkpoint_is_not_in_the_model(store: Store, tmp_path: Path):
    """It stands in the plan and in every part."""
    tensors = {f"module.{name}": tensor for name, tensor in load(BUNDLED["small"].read_bytes()).items()}
    (tmp_path / "wrapped.safetensors").write_bytes(save(tensors))
    settings = Settings(model=ModelSettings(checkpoint=str(tmp_path / "wrapped.safetensors")))
    assert weights_from_settings(settings, store, progress=Notes()).notes == ("prefix 'module.' of the keys",)
    assert weights_from_settings(Settings(), store, progress=Notes()).notes == ()


def test_family_and_layout_of_the_file_are_known_before_a_run_is_planned(tmp_path: Path, store: Store) -> None:
    """They stand in the plan, the same for a file that was opened and for one that was not."""
    path = tmp_path / "small.safetensors"
    path.write_bytes(BUNDLED["small"].read_bytes())
    given = Settings(model=ModelSettings(name="small", checkpoint=str(path)))
    told = [weights_from_settings(settings, store, progress=Notes()) for settings in (Settings(), given)]
    assert [(weights.family, weights.layout) for weights in told] == [("sam2", "released")] * 2


def test_the_terms_of_a_model_that_is_not_free_are_said_once(tmp_path: Path, store: Store) -> None:
    """SAM 3's licence forbids some uses, and whoever uses it has to know."""
    (tmp_path / "sam3.pt").write_bytes(b"cut")
    settings, said = Settings(model=ModelSettings(name="sam3", checkpoint=str(tmp_path / "sam3.pt"))), Notes()
    with pytest.raises(ConfigError, match="cut short"):
        weights_from_settings(settings, store, progress=said)
    assert [sentence.partition(" (")[0] for sentence in said.sentences] == ["SAM 3's weights are under the SAM License"]


def test_the_bundled_weights_are_known_by_the_bytes_that_are_checked_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A driver opens no file whose hash it knows: the hash must be that of a file that fits."""
    assert list(SHA256) == list(BUNDLED)
    for name, path in BUNDLED.items():
        known = known_weights(name)
        assert known == check_weights(name)
        (tmp_path / name).write_bytes(path.read_bytes()[:-1])
        monkeypatch.setitem(BUNDLED, name, tmp_path / name)
        assert known_weights(name) is None, "a file that was cut is opened, and refused by what is wrong with it"
        (tmp_path / name).unlink()
        assert known_weights(name) is None
    assert known_weights("vit_b") is None


DRIVER = """
import sys
from pipeline.plan.planning import create_or_load_plan
from pipeline.run.session import run_settings
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.weights import weights_from_settings
weights_from_settings(Settings(), connect(StoreSettings()), progress=None)
print({"ray", "torch"} & sys.modules.keys())
"""


def test_a_driver_with_the_bundled_weights_starts_without_torch():
    """Three seconds of every command, which its workers need and it does not."""
    told = subprocess.run([sys.executable, "-c", DRIVER], capture_output=True, text=True, check=True)
    assert told.stdout == "{'ray'}\n"
