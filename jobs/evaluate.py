"""How good a model or a dataset is: `python -m jobs.evaluate [model.checkpoint=...] [recipe=...]`.

Without `truth` it measures points and masks of the model on held-out drawn scenes. With `masks` and `truth` it compares
a finished output with other masks of the same images, and measures recall only.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from jobs.command import run_command
from model.load import resolve_device
from model.training.scenes import HELD_OUT_FROM, held_out_scene
from pipeline.errors import ConfigError
from pipeline.evaluation.recall import total_recall
from pipeline.evaluation.report import figures, markdown
from pipeline.evaluation.scenes import SceneTest, measure
from pipeline.evaluation.truths import Truths
from pipeline.output.labelled import open_labelled, same_images
from pipeline.progress import progress_on
from pipeline.settings import ModelSettings, Recipe, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute
from pipeline.work.released import with_weights_here
from pipeline.work.weights import checked_weights, load_model


@dataclass(frozen=True)
class EvaluateJob:
    """What the command takes."""

    model: ModelSettings = field(default_factory=ModelSettings)
    recipe: Recipe = field(default_factory=Recipe)
    """The recipe of the masks whose recall is counted. The command line's default is recipe=sa1b."""
    scenes: int = 200
    """Number of held-out scenes that points are placed on, counted from the first held-out scene."""
    recall_scenes: int = 200
    """How many of these scenes also get masks, for recall. Masks cost far more than points. 0 makes none."""
    scene_side: int = 384
    """Pixels along a side of a scene. The default is the size that training draws."""
    least_area: int = 100
    """Pixels. A thing of which fewer are visible is not a truth. recipe=sa1b gives no smaller masks either."""
    processes: int = 2
    """Scenes worked on at once, one core each."""
    masks: str = ""
    """A finished output. Its masks are evaluated instead of those of a model."""
    truth: str = ""
    """The masks that `masks` is compared with: another output, or SA-1B annotations (tars or folders of JSON)."""
    out: str = "outputs/evaluation"
    """Folder that evaluation.json and evaluation.md are written to."""
    store: StoreSettings = field(default_factory=StoreSettings)


def evaluate(job: EvaluateJob) -> int:
    """Measure, write the two files, print the table."""
    if bool(job.masks) != bool(job.truth):
        raise ConfigError("masks= and truth= go together: an output, and what it is compared with")
    document = evaluate_masks(job) if job.masks else evaluate_scenes(job)
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "evaluation.md").write_text(markdown(document))
    sys.stdout.write(markdown(document))
    return 0


def evaluate_scenes(job: EvaluateJob) -> dict[str, Any]:
    """The figures of a model on held-out scenes.

    raises  ConfigError if the weights cannot be used
    """
    if job.scenes < 1:
        raise ConfigError(f"scenes={job.scenes} must be 1 or more")
    store, model = connect(job.store), with_weights_here(job.model, progress_on(sys.stderr))
    if model.checkpoint is not None:
        model = replace(model, checkpoint=absolute(model.checkpoint))
    sha256 = checked_weights(model, store).sha256
    test = SceneTest(
        draw=partial(held_out_scene, size_hw=(job.scene_side, job.scene_side)),
        load=partial(load_model, model, sha256, store),
        scenes=job.scenes,
        recall_scenes=job.recall_scenes,
        recipe=job.recipe,
        least_area=job.least_area,
        seed=HELD_OUT_FROM,
    )
    test.load()  # what is wrong with the device is said here, and not by a process
    torch.set_num_threads(1)
    with _workers(job) as pool:
        found = measure(test, pool, say=lambda sentence: sys.stderr.write(sentence + "\n"))
    data = (
        f"held-out scenes {HELD_OUT_FROM} to {HELD_OUT_FROM + job.scenes - 1}, {job.scene_side} px a side, "
        f"things of {job.least_area} px or more"
    )
    return {"model": model.name, "weights_sha256": sha256, "data": data} | found


def evaluate_masks(job: EvaluateJob) -> dict[str, Any]:
    """Recall of the masks of a finished output, on the images that `truth` names.

    raises  ConfigError if one of these images is not in the output, or has another size there
    """
    store = connect(job.store)
    found, truth = open_labelled(absolute(job.masks), store), open_labelled(absolute(job.truth), store)
    recall = total_recall(
        (masks.counts, masks.scores, Truths.of(known.counts, known.hw)) for masks, known in same_images(found, truth)
    )
    data = f"{len(truth)} of {len(found)} images, those that truth names"
    return {"masks": job.masks, "truth": job.truth, "data": data} | figures({}, recall)


def _workers(job: EvaluateJob) -> AbstractContextManager[Executor | None]:
    """Processes for the scenes; None on a GPU, which is not shared, so that scenes go one after the other there."""
    if job.processes < 2 or resolve_device(job.model.device).type != "cpu":
        return nullcontext()
    spawn = get_context("spawn")
    return ProcessPoolExecutor(job.processes, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,))


def main() -> int:
    return run_command("evaluate", EvaluateJob, evaluate)


if __name__ == "__main__":
    sys.exit(main())
