"""The command for a machine that is there for minutes: it ends in time, goes on, and writes weights to use."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.load import load_sam
from model.training import __main__ as command
from model.training.__main__ import changed
from model.training.calibrate import calibration_of
from model.training.photo_bank import CutOut, PhotoBank, read_bank, write_bank
from model.training.photo_cuts import PHOTOGRAPHS
from model.training.scenes import PART, WHOLE, DrawnScenes, draw_scene
from model.training.settings import Schedule, TrainSettings
from tests.training.mini import MINI

SMALLEST = {
    "model": MINI.name,
    "batch": 2,
    "pool": 8,
    "points_per_image": 2,
    "fineness": 2,
    "evaluation_images": 2,
    "device": "cpu",
    "replicas": 1,
    "bfloat16": "false",
    "follow_up_share": 0,
    "log_every": 1,
    "loss.boundary_weight": 2,
}


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """One red texture, one green thing with a blue part."""
    thing_HW3 = np.zeros((40, 30, 3), np.uint8)
    thing_HW3[..., 1] = 255
    mask_HW = np.ones((40, 30), np.uint8)
    mask_HW[:5] = 0
    parts_LHW = np.zeros((2, 40, 30), np.uint8)
    parts_LHW[0, 10:30, 5:25] = 1
    thing_HW3[10:30, 5:25] = (0, 0, 255)
    red_HW3 = np.full((50, 60, 3), (200, 20, 20), np.uint8)
    write_bank(PhotoBank((red_HW3,), (CutOut(thing_HW3, mask_HW, parts_LHW),)), tmp_path / "bank.npz", {})
    return tmp_path / "bank.npz"


def test_a_training_out_of_time_takes_a_step_writes_its_files_and_goes_on(tmp_path: Path, bank: Path) -> None:
    """The machine is taken away at a known moment; what is not written by then is lost."""
    settings = changed(TrainSettings(), [f"{name}={value}" for name, value in SMALLEST.items()])
    settings = replace(settings, photographs=str(bank))
    command.train(tmp_path / "out", settings, until=time.monotonic())
    (first, *_, last) = [json.loads(line) for line in (tmp_path / "out/state.curve.jsonl").read_text().splitlines()]
    assert first["step"] == 0
    assert last["step"] > 0
    assert last["scenes"] > 0
    command.train(tmp_path / "out", settings, until=time.monotonic())
    resumed = json.loads((tmp_path / "out/state.curve.jsonl").read_text().splitlines()[-1])
    assert resumed["step"] > last["step"]
    averaged = tmp_path / "out/averaged.safetensors"
    command.finish(averaged, tmp_path / "model.safetensors", settings)
    assert calibration_of(averaged) is None
    assert calibration_of(tmp_path / "model.safetensors") is not None
    raw, done = (load_sam(path.read_bytes()).state_dict() for path in (averaged, tmp_path / "model.safetensors"))
    assert torch.equal(raw["image_encoder.pos_embed"], done["image_encoder.pos_embed"])


def test_settings_are_taken_by_name_and_kind() -> None:
    """A mistyped one would train for hours with the default."""
    settings = changed(
        TrainSettings(),
        ["batch=3", "loss.iou_weight=4", "bfloat16=false", "schedule=steps", "minutes=2.5", "start=a=b"],
    )
    assert (settings.batch, settings.loss.iou_weight, settings.bfloat16) == (3, 4.0, False)
    assert (settings.schedule, settings.minutes, settings.start) == (Schedule.STEPS, 2.5, "a=b")
    with pytest.raises(ValueError, match="no setting 'batches'; there are model, device"):
        changed(TrainSettings(), ["batches=3"])
    with pytest.raises(ValueError, match="int"):
        changed(TrainSettings(), ["batch=many"])


def test_a_share_of_the_scenes_has_photographs_and_the_others_are_as_ever(bank: Path) -> None:
    """Held-out scenes are drawn without; a training with photographs must still see their like."""
    source = DrawnScenes(3, str(bank), share=0.5)
    plain = [np.array_equal(source.scene(n).rgb_HW3, draw_scene(3, n).rgb_HW3) for n in range(8)]
    assert 0 < sum(plain) < 8


def test_things_from_photographs_bring_their_parts(bank: Path) -> None:
    """The part is blue and the whole around it green, whatever the light."""
    blue = green = 0
    for number in range(30):
        scene = draw_scene(5, number, size_hw=(128, 128), bank=read_bank(str(bank)))
        assert (scene.labels_3HW[WHOLE] > 0).all()
        rgb_HW3 = scene.rgb_HW3.astype(int)
        is_blue_HW = (rgb_HW3[..., 2] > 80) & (rgb_HW3[..., :2].max(axis=2) < 12)
        is_green_HW = (rgb_HW3[..., 1] > 80) & (rgb_HW3[..., ::2].max(axis=2) < 12)
        blue += int((is_blue_HW & (scene.labels_3HW[PART] > 0)).sum()) - int(
            (is_blue_HW & (scene.labels_3HW[PART] == 0)).sum()
        )
        green += int(is_green_HW.sum())
    assert blue > 500
    assert green > 500


def test_every_photograph_names_its_licence() -> None:
    """The card lists them."""
    assert all(
        photograph.licence and photograph.file.startswith(("skimage/", "sklearn/")) for photograph in PHOTOGRAPHS
    )
