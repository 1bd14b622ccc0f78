"""Weights by name: fetched once, for every command that needs them, and what is said where that is not possible."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.submit import submit_job
from jobs.weights import main
from model.load import BUNDLED, load_segmenter
from model.released import RELEASED, ReleasedFile
from pipeline import MaskGenerator
from pipeline.errors import ConfigError
from pipeline.settings import ModelSettings, RunSettings, Settings, StoreSettings, SubmitJob
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from pipeline.work.released import cache_folder
from pipeline.work.weights import weights_from_settings
from tests.commands import Command, command_of
from tests.fakes_run import Notes
from tests.web_server import Web, web

__all__ = ["web"]


@pytest.fixture
def released(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The bundled weights, served as if they were the released file of `small`, and an empty cache folder."""
    web.body = BUNDLED["small"].read_bytes()
    url = web.url.replace("weights.pth", "small.safetensors")
    file = ReleasedFile(url, len(web.body), hashlib.sha256(web.body).hexdigest(), "Apache-2.0")
    monkeypatch.setitem(RELEASED, "small", file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return web


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m jobs.weights` with these overrides: its exit code and what it said."""
    return command_of("weights", main, monkeypatch, capsys)


def test_every_released_file_is_named_by_an_address_a_size_and_a_hash() -> None:
    for name, file in RELEASED.items():
        assert file.url.startswith("https://")
        assert file.name.endswith((".pth", ".pt"))
        assert (name.replace("_", "_hiera_", 1) if name.startswith("sam2") else name) in file.name
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size > 10**8


def test_a_run_on_one_machine_says_what_it_fetches_and_does_it_once(released: Web, store: Store) -> None:
    notes = Notes()
    weights = weights_from_settings(Settings(), store, progress=notes)
    assert weights.sha256 == RELEASED["small"].sha256
    path = cache_folder() / "small.safetensors"
    assert path.read_bytes() == released.body
    [said] = notes.sentences
    address = RELEASED["small"].url
    assert said == f"fetching small.safetensors, 0.01 GB (Apache-2.0), from {address} to {path.parent}"
    assert notes.fetches[-1] == ("small.safetensors", len(released.body), len(released.body))
    again = Notes()
    assert weights_from_settings(Settings(), store, progress=again).sha256 == weights.sha256
    assert again.sentences == []
    assert len(released.seen) == 1


def test_a_checkpoint_that_is_named_is_never_fetched(released: Web, store: Store) -> None:
    model = ModelSettings(checkpoint=str(BUNDLED["small"]))
    weights_from_settings(Settings(model=model), store, progress=Notes())
    assert released.seen == []


def test_where_several_machines_need_them_nothing_is_fetched_and_the_way_is_told(released: Web, store: Store) -> None:
    settings = Settings(run=RunSettings(address="auto"))
    with pytest.raises(ConfigError) as caught:
        weights_from_settings(settings, store, progress=Notes())
    assert str(caught.value) == (
        "model=small needs model.checkpoint where several machines read it: "
        "make weights MODEL=small TO=s3://bucket/weights puts small.safetensors there"
    )
    job = SubmitJob(source="s3://b/in", out="s3://b/out", run=RunSettings(address="auto"))
    with pytest.raises(ConfigError, match="make weights MODEL=small TO="):
        submit_job(job)
    assert released.seen == []


def test_without_a_network_the_error_says_what_to_do(
    released: Web, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RELEASED, "small", replace(RELEASED["small"], url="http://127.0.0.1:9/small.safetensors"))
    monkeypatch.setattr("pipeline.work.download.PAUSES_S", ())
    with pytest.raises(ConfigError) as caught:
        weights_from_settings(Settings(), store, progress=Notes())
    told = str(caught.value)
    assert "cannot be fetched" in told
    assert f"or put the file at {cache_folder() / 'small.safetensors'} yourself, or set model.checkpoint" in told


def test_python_callers_get_the_same_file(released: Web, capsys: pytest.CaptureFixture[str]) -> None:
    generator = MaskGenerator(points_per_side=1, pred_iou_thresh=0.0)
    assert isinstance(generator.generate(np.zeros((40, 40, 3), np.uint8)), list)
    assert "fetching small.safetensors" in capsys.readouterr().err
    assert len(released.seen) == 1


def test_the_command_fetches_a_file_and_says_how_to_use_it(released: Web, command: Command) -> None:
    code, out, err = command("name=small")
    path = cache_folder() / "small.safetensors"
    assert (code, out) == (0, f"Maskmill: {path} is the released file; use it with model=small\n")
    assert "fetching small.safetensors" in err
    assert command("name=small") == (0, out, "")


def test_the_command_puts_a_copy_where_others_read_it(released: Web, command: Command, tmp_path: Path) -> None:
    code, out, _ = command("name=small", f"to={tmp_path / 'shared'}")
    copy = tmp_path / "shared" / "small.safetensors"
    assert (code, copy.read_bytes()) == (0, released.body)
    assert out.endswith(f"use it with model=small model.checkpoint={copy}\n")
    assert load_segmenter(name="small", checkpoint=copy.read_bytes()).weights_sha256 == RELEASED["small"].sha256


def test_the_command_puts_a_copy_into_s3_once(
    released: Web, command: Command, s3_endpoint: str, s3_bucket: str
) -> None:
    overrides = ("name=small", f"to=s3://{s3_bucket}/weights/", f"store.endpoint_url={s3_endpoint}")
    code, out, _ = command(*overrides)
    assert code == 0
    uri = f"s3://{s3_bucket}/weights/small.safetensors"
    assert f"model.checkpoint={uri}\n" in out
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    first = store.head(uri)
    assert store.read(uri) == released.body
    assert command(*overrides)[0] == 0
    assert store.head(uri) == first


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ((), "say which model: name=...; there are vit_b, vit_l, vit_h, sam2.1_tiny, sam2.1_small"),
        (("name=vit_x",), "there is no released file of name=vit_x; there are vit_b"),
        (("name=small", "to=/dev/null/weights"), "/dev/null is to be a folder"),
    ],
)
@pytest.mark.usefixtures("released")
def test_what_cannot_be_done_is_one_sentence(command: Command, overrides: tuple[str, ...], sentence: str) -> None:
    code, out, err = command(*overrides)
    assert (code, out) == (2, "")
    assert sentence in err.splitlines()[-1]
