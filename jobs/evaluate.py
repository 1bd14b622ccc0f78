"""How good a model or a dataset is: `python -m jobs.evaluate [model.checkpoint=...] [recipe=...]`.

Without `truth` it measures points and masks of the model on held-out drawn scenes. With `masks` and `truth` it compares
a finished output with other masks of the same images, and measures recall only.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.command import run_command
from model.load import CheckpointError, load_segmenter, resolve_device
from model.segmenter import TorchSegmenter
from model.training.scenes import HELD_OUT_FROM, draw_scene
from pipeline.errors import ConfigError
from pipeline.evaluation.points import PointScores, centre_points, random_points, score_points
from pipeline.evaluation.recall import RecallCounts, count_recall
from pipeline.evaluation.report import figures, markdown
from pipeline.evaluation.truths import Truths
from pipeline.masks.generator import generate_masks
from pipeline.output.labelled import open_labelled
from pipeline.settings import ModelSettings, Recipe, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute

SCENES_AT_ONCE = 4
"""Scenes that a process works on between two reports of progress."""


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


@dataclass(frozen=True)
class SceneScores:
    """The measurements on some scenes."""

    images: int
    centre: PointScores
    random: PointScores
    recall: RecallCounts | None
    cpu_s: float


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
    checkpoint = None if job.model.checkpoint is None else connect(job.store).read(absolute(job.model.checkpoint))
    weights_sha256 = _segmenter(job, checkpoint).weights_sha256
    begun = time.monotonic()
    starts = range(0, job.scenes, SCENES_AT_ONCE)
    slices = [range(start, min(start + SCENES_AT_ONCE, job.scenes)) for start in starts]
    done: list[SceneScores] = []
    with _workers(job) as pool:
        score = partial(score_scenes, job, checkpoint)
        for scores in pool.map(score, slices) if pool else map(score, slices):
            done.append(scores)
            images, seconds = sum(each.images for each in done), time.monotonic() - begun
            sys.stderr.write(f"{images} of {job.scenes} scenes, {seconds:.0f} s\n")
    points = {
        kind: (job.scenes, PointScores.concatenate([getattr(scores, kind) for scores in done]))
        for kind in ("centre", "random")
    }
    recalls = [scores.recall for scores in done if scores.recall is not None]
    made_by = {
        "model": job.model.name,
        "weights_sha256": weights_sha256,
        "data": f"held-out scenes {HELD_OUT_FROM} to {HELD_OUT_FROM + job.scenes - 1}, {job.scene_side} px a side, "
        f"things of {job.least_area} px or more",
        "cpu_seconds": round(sum(scores.cpu_s for scores in done), 1),
    }
    return made_by | figures(points, sum(recalls[1:], recalls[0]) if recalls else None)


def evaluate_masks(job: EvaluateJob) -> dict[str, Any]:
    """Recall of the masks of a finished output, on the images that `truth` names.

    raises  ConfigError if one of these images is not in the output, or has another size there
    """
    store = connect(job.store)
    found, truth = open_labelled(absolute(job.masks), store), open_labelled(absolute(job.truth), store)
    number_of = {entry.image_id: number for number, entry in enumerate(found.entries)}
    missing = [entry.image_id for entry in truth.entries if entry.image_id not in number_of]
    if missing:
        raise ConfigError(
            f"{len(missing)} of the {len(truth)} images of truth={job.truth} (ids {missing[:3]}) are not in "
            f"masks={job.masks}; generate masks of the same images"
        )
    recall: RecallCounts | None = None
    for number, entry in enumerate(truth.entries):
        known, masks = truth.masks(number), found.masks(number_of[entry.image_id])
        if masks.counts and masks.hw != known.hw:
            raise ConfigError(f"image {entry.image_id} is {masks.hw} in masks= and {known.hw} in truth=")
        counts = count_recall(masks.counts, np.array(masks.scores, np.float64), Truths.of(known.counts, known.hw))
        recall = counts if recall is None else recall + counts
    data = f"{len(truth)} of {len(found)} images, those that truth names"
    return {"masks": job.masks, "truth": job.truth, "data": data} | figures({}, recall)


def _workers(job: EvaluateJob) -> AbstractContextManager[Executor | None]:
    """Processes for the scenes; None on a GPU, which is not shared, so that scenes go one after the other there."""
    if job.processes < 2 or resolve_device(job.model.device).type != "cpu":
        return nullcontext()
    return ProcessPoolExecutor(job.processes, mp_context=get_context("spawn"))


def score_scenes(job: EvaluateJob, checkpoint: bytes | None, numbers: range) -> SceneScores:
    """Some scenes, one after the other, on one core."""
    torch.set_num_threads(1)
    segmenter = _segmenter(job, checkpoint)
    begun = time.process_time()
    centre: list[PointScores] = []
    random: list[PointScores] = []
    recall: RecallCounts | None = None
    for number in numbers:
        scene = draw_scene(0, HELD_OUT_FROM + number, size_hw=(job.scene_side, job.scene_side))
        truths = Truths.of_labels(scene.labels_3HW).at_least(job.least_area)
        somewhere_T2 = random_points(truths, np.random.default_rng([HELD_OUT_FROM, number]))
        scores = score_points(segmenter, scene.rgb_HW3, truths, centre_points(truths), somewhere_T2)
        centre.append(scores[0])
        random.append(scores[1])
        if number < job.recall_scenes:
            (found,) = generate_masks([scene.rgb_HW3], segmenter, job.recipe)
            score_D = np.array([mask.predicted_iou for mask in found.masks], np.float64)
            counts = count_recall([mask.counts for mask in found.masks], score_D, truths)
            recall = counts if recall is None else recall + counts
    join = PointScores.concatenate
    return SceneScores(len(numbers), join(centre), join(random), recall, time.process_time() - begun)


def _segmenter(job: EvaluateJob, checkpoint: bytes | None) -> TorchSegmenter:
    try:
        return load_segmenter(name=job.model.name, checkpoint=checkpoint, device=job.model.device)
    except CheckpointError as error:
        raise ConfigError(f"model.checkpoint={job.model.checkpoint}: {error}") from error


def main() -> int:
    return run_command("evaluate", EvaluateJob, evaluate)


if __name__ == "__main__":
    sys.exit(main())
