"""The whole way with the real model: checkpoint file, loader, actor, torch, part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from model.config import CONFIGS
from model.sam import Sam
from pipeline.errors import ConfigError
from pipeline.run.opening import plan_run
from pipeline.run.outcome import Outcome
from pipeline.run.report import summary
from pipeline.run.session import run_settings
from pipeline.settings import ModelSettings, Recipe, Settings
from pipeline.signals import StopFlag
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from pipeline.work.weights import load_model, weights_from_settings
from tests.fakes_run import Notes, drawn_image, write_folder
from tests.small_runs import parts_of, with_run, work


def run(settings: Settings) -> Outcome:
    return run_settings(
        settings, progress=Notes(), find_weights=partial(weights_from_settings, progress=Notes()), stop=StopFlag()
    )


@pytest.fixture
def untrained(settings: Settings, tmp_path: Path) -> Settings:
    """The tiny model with random weights in a .pth; every candidate is kept."""
    torch.manual_seed(0)
    torch.save(Sam(CONFIGS["tiny"]).state_dict(), tmp_path / "tiny.pth")
    folder = write_folder(tmp_path / "images", {f"im{number}.png": drawn_image(number) for number in range(4)})
    recipe = Recipe(points_per_side=3, pred_iou_thresh=-1e9, stability_score_thresh=0.0, box_nms_thresh=1.0)
    model = ModelSettings(name="tiny", checkpoint=str(tmp_path / "tiny.pth"), device="cpu")
    return with_run(replace(settings, source=str(folder), recipe=recipe, model=model), images_per_chunk=2)


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """Afterwards: a worker's choices are for its whole process."""
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    yield
    torch.set_deterministic_debug_mode(mode)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("cluster", "torch_as_it_was")
def test_real_model_gives_the_same_bytes_for_any_number_of_workers(untrained: Settings, store: Store, tmp_path: Path):
    """Float sums of another process must round alike: threads and torch's choices are fixed. Beside two workers, this
    process does what one worker would."""
    two = run(with_run(untrained, max_workers=2))
    assert two.exit_code == 0
    assert two.manifest is not None
    assert two.manifest.masks > 4, summary(two)
    weights = weights_from_settings(untrained, store, progress=Notes())
    here = plan_run(untrained, str(tmp_path / "here"), store, weights, Notes())
    generate = weights.load(store, untrained.recipe, threads=untrained.run.threads_per_worker)
    work(WorkerContext(out=here.out, plan=here.planned.plan, store=store, generate=generate))
    assert parts_of(two.out) == parts_of(here.out)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("content", ["garbage", "other_model"])
def test_wrong_checkpoint_is_a_configuration_error_that_names_it(untrained: Settings, tmp_path: Path, content: str):
    """Found before a plan is frozen around the wrong file, so that the mended command can use the same OUT."""
    path = tmp_path / f"{content}.pth"
    if content == "garbage":
        path.write_bytes(b"no weights at all")
    else:
        torch.save({"linear.weight": torch.zeros(2, 2)}, path)
    settings = replace(untrained, model=replace(untrained.model, checkpoint=str(path)))
    with pytest.raises(ConfigError, match=path.name):
        run(settings)
    assert not Path(settings.out).exists()


def test_a_worker_refuses_weights_that_are_not_the_plans(store: Store):
    """A path may name another file on another machine; its masks would pass for those of the planned weights."""
    with pytest.raises(ConfigError, match=r"model\.checkpoint.* on this machine and 000000000000 where the run began"):
        load_model(ModelSettings(device="cpu"), "0" * 64, store)
