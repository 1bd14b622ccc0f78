"""How good a model is on images whose every thing is known: points on the things, and the recall of its masks.

Owns the loop over the images. How an image is drawn, a model loaded and the work spread is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.points import PointScores, centre_points, random_points, score_points
from pipeline.evaluation.recall import NO_IMAGES, RecallCounts, count_recall
from pipeline.evaluation.report import figures
from pipeline.evaluation.truths import Truths
from pipeline.masks.generator import generate_masks
from pipeline.masks.segmenter import Segmenter
from pipeline.settings import Recipe

SCENES_AT_ONCE = 4
"""Scenes that a process works on between two reports of progress."""


class KnownScene(Protocol):
    """An image and the things in it, as levels of labels (0 is nothing)."""

    @property
    def rgb_HW3(self) -> npt.NDArray[np.uint8]: ...
    @property
    def labels_3HW(self) -> npt.NDArray[np.uint16]: ...


@dataclass(frozen=True)
class SceneTest:
    """What is measured, on which scenes; pickles.

    draw           the scene with a number, the same on every call
    load           the model
    scenes         their number; they are counted from 0
    recall_scenes  how many of these also get masks
    recipe         of these masks
    least_area     pixels; a thing of which fewer are visible is not a truth
    seed           of the random points, together with the scene's number
    """

    draw: Callable[[int], KnownScene]
    load: Callable[[], Segmenter[Any]]
    scenes: int
    recall_scenes: int
    recipe: Recipe
    least_area: int
    seed: int


@dataclass(frozen=True)
class SceneScores:
    """The measurements on some scenes."""

    images: int
    centre: PointScores
    random: PointScores
    recall: RecallCounts
    cpu_s: float

    @staticmethod
    def joined(parts: Sequence[SceneScores]) -> SceneScores:
        """All of them in order; at least one."""
        return SceneScores(
            images=sum(part.images for part in parts),
            centre=PointScores.concatenate([part.centre for part in parts]),
            random=PointScores.concatenate([part.random for part in parts]),
            recall=sum((part.recall for part in parts), NO_IMAGES),
            cpu_s=sum(part.cpu_s for part in parts),
        )


def measure(test: SceneTest, pool: Executor | None, *, say: Callable[[str], object]) -> dict[str, Any]:
    """The CPU seconds of all scenes and their figures (see `figures`).

    pool  where several scenes are worked on at once; without one they are worked on here
    """
    begun = time.monotonic()
    starts = range(0, test.scenes, SCENES_AT_ONCE)
    slices = [range(start, min(start + SCENES_AT_ONCE, test.scenes)) for start in starts]
    done: list[SceneScores] = []
    for scores in (pool.map if pool else map)(partial(score_scenes, test), slices):
        done.append(scores)
        images, seconds = sum(each.images for each in done), time.monotonic() - begun
        say(f"{images} of {test.scenes} scenes, {seconds:.0f} s")
    whole = SceneScores.joined(done)
    points = {"centre": (whole.images, whole.centre), "random": (whole.images, whole.random)}
    return {"cpu_seconds": round(whole.cpu_s, 1)} | figures(points, whole.recall)


def score_scenes(test: SceneTest, numbers: range) -> SceneScores:
    """Some scenes, one after the other, with a model that is loaded for them."""
    segmenter = test.load()
    return SceneScores.joined([_score_scene(test, segmenter, number) for number in numbers])


def _score_scene(test: SceneTest, segmenter: Segmenter[Any], number: int) -> SceneScores:
    begun = time.process_time()
    scene = test.draw(number)
    truths = Truths.of_labels(scene.labels_3HW).at_least(test.least_area)
    somewhere_T2 = random_points(truths, np.random.default_rng([test.seed, number]))
    centre, random = score_points(segmenter, scene.rgb_HW3, truths, centre_points(truths), somewhere_T2)
    recall = NO_IMAGES
    if number < test.recall_scenes:
        (found,) = generate_masks([scene.rgb_HW3], segmenter, test.recipe)
        score_D = np.array([mask.predicted_iou for mask in found.masks], np.float64)
        recall = count_recall([mask.counts for mask in found.masks], score_D, truths)
    return SceneScores(1, centre, random, recall, time.process_time() - begun)
