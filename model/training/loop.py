"""The loop of a training: schedule, averaged weights, checkpoints. Resumable at any step.

Owns when things happen; what a step minimises is in losses.py, what it sees in views.py.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.config import TRAINABLE, ModelConfig, Resize
from model.load import resolve_device
from model.sam import Sam
from model.training.batches import Batch, TrainingBatches, held_out_batches, prefetched, split_batch
from model.training.evaluate import Evaluation, outputs_and_truths, summarise
from model.training.forward import Step, batch_loss
from model.training.learner import Learner
from model.training.losses import PromptLoss
from model.training.means import Means
from model.training.optimiser import Optimiser
from model.training.replicas import Replicas
from model.training.scene_pool import PoolSettings, ScenePool
from model.training.scenes import DrawnScenes, SceneSource
from model.training.settings import Schedule, TrainSettings
from model.training.starting import weights_of, with_decoder_of
from model.training.views import TrainingViews, ViewSettings

log = logging.getLogger(__name__)

_ATTENTION = {
    # Of a plain ViT's encoder on a CPU: with so few tokens plain products go back faster than the fused kernel.
    "cpu": [SDPBackend.MATH],
    # cuDNN's would be built anew for each of the sizes, and gives no gradient to a bias.
    "cuda": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    elapsed_s: float = 0.0
    images: int = 0
    scenes: int = 0
    """Drawn into a pool."""


class Training:
    """A model in training and everything that has to survive an interruption."""

    def __init__(self, settings: TrainSettings, scenes: SceneSource | None = None) -> None:
        """`scenes` are those that are drawn if none are given."""
        self.settings = settings
        self.progress = Progress()
        self.device = resolve_device(settings.device)
        self.scenes = scenes or drawn_scenes(settings)
        torch.manual_seed(settings.seed)
        self.learner = Learner(TRAINABLE[settings.model], drop_path=settings.drop_path)
        if settings.start:
            self.sam.load_state_dict(weights_of(Path(settings.start), self.sam.config))
        elif settings.start_decoder:
            self.sam.load_state_dict(with_decoder_of(Path(settings.start_decoder), self.sam))
        self.learner.to(self.device)
        self.average = {key: value.detach().clone() for key, value in self.sam.state_dict().items()}
        self.replicas = Replicas(self.learner, settings.replicas if self.device.type == "cpu" else 1)
        self.optimiser = Optimiser(
            self.learner,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
        )

    @property
    def sam(self) -> Sam:
        """The model itself, without what only training needs."""
        return self.learner.sam

    @property
    def fraction(self) -> float:
        """Share of the training that is over, by steps, or by the clock if `minutes` are set."""
        if self.settings.minutes is None:
            return self.progress.step / self.settings.steps
        return self.progress.elapsed_s / (60 * self.settings.minutes)

    @property
    def learning_rate(self) -> float:
        """Of the next step: a linear warm-up, then the schedule."""
        warm = min(1.0, (self.progress.step + 1) / self.settings.warm_up_steps)
        return self.settings.learning_rate * warm * _share_of_peak(self.settings.schedule, min(1.0, self.fraction))

    @property
    def source(self) -> TrainingBatches:
        """The batches; step n takes number n."""
        views = TrainingViews(
            self.settings.seed,
            view_settings(self.settings, self.sam.config),
            batch=self.settings.batch,
            views_per_scene=self.settings.views_per_scene,
            scenes=self.scenes,
        )
        return TrainingBatches(views)

    def run(self, checkpoint: Path) -> Evaluation:
        """Train to the end, logging and saving on the way; returns the last evaluation."""
        if self.fraction < 1:
            with closing(self._batches()) as batches:
                self._run_steps(batches, checkpoint)
        self.save(checkpoint)
        return self.evaluated(checkpoint)

    def _batches(self) -> Generator[Batch]:
        settings = self.settings
        if not settings.pool:
            yield from prefetched(self.source, start=self.progress.step, workers=settings.workers)
        view = view_settings(settings, self.sam.config)
        sizes = PoolSettings(settings.pool, least=min(settings.pool, 4 * settings.batch), workers=settings.workers)
        before = self.progress.scenes
        with ScenePool(self.scenes, sizes, self.device, first=before) as pool:
            while True:
                batch = pool.batch(settings.batch, view, _rng(str(self.device), settings.seed, self.progress.step))
                self.progress.scenes = before + pool.taken_in
                yield batch

    def evaluated(self, checkpoint: Path) -> Evaluation:
        """The figures, which go to the log and, a line of JSON each time, to a file beside the checkpoint."""
        evaluation = self.evaluate()
        log.info("held out at step %d: %s", self.progress.step, evaluation)
        with checkpoint.with_suffix(".curve.jsonl").open("a") as curve:
            curve.write(json.dumps(asdict(self.progress) | asdict(evaluation)) + "\n")
        return evaluation

    def _run_steps(self, batches: Iterator[Batch], checkpoint: Path) -> None:
        last = saved = evaluated = time.monotonic()
        means = Means()
        while self.fraction < 1:
            means.add(self.step(next(batches)), self.settings.batch)
            now = time.monotonic()
            self.progress.elapsed_s += now - last
            last = now
            if self.progress.step % self.settings.log_every == 0:
                log.info("%s: %s", self._where(), means.line())
                means.check(self.progress.step)
                means = Means()
            if now - saved > self.settings.save_every_s:
                self.save(checkpoint)
                saved = now
            if now - evaluated > self.settings.evaluate_every_s:
                self.evaluated(checkpoint)
                evaluated = time.monotonic()

    def _where(self) -> str:
        return f"step {self.progress.step} ({100 * self.fraction:.1f} %), {self.progress.elapsed_s:.0f} s"

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the optimiser; returns what was measured on the way, and waits for no value of it."""
        self.learner.train()
        settings, number = self.settings, self.progress.step
        follow_up = bool(torch.rand((), generator=_rng("cpu", settings.seed, number)) < settings.follow_up_share)

        def backward(learner: Learner, numbered: tuple[int, Batch]) -> PromptLoss:
            part_number, part = numbered
            rng = _rng(str(self.device), settings.seed, number, 1 + part_number)
            learner.seed(rng)
            loss = batch_loss(learner, part, Step(settings, follow_up, rng))
            loss.total.backward()
            return loss.detach()

        parts = split_batch(batch.to(self.device), self.replicas.count)
        with sdpa_kernel(_ATTENTION[self.device.type]):
            losses = self.replicas.backward(list(enumerate(parts)), backward)
        norm = torch.nn.utils.clip_grad_norm_(self.learner.parameters(), self.settings.clip_norm)
        rate = self.learning_rate
        self.optimiser.step(rate)
        self.progress.step += 1
        self.progress.images += len(batch.sizes_B2)
        self._update_average()
        figures = [loss.figures() for loss in losses]
        means = {name: torch.stack([each[name] for each in figures]).mean() for name in figures[0]}
        return {**means, "norm": norm, "lr": torch.tensor(rate)}

    def _update_average(self) -> None:
        # A young average follows closely, or it would drag the random start along.
        decay = min(self.settings.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        with torch.no_grad():
            for key, value in self.sam.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)

    def averaged(self) -> Sam:
        """A copy of the model with the averaged weights, for use."""
        sam = Sam(self.sam.config)
        sam.load_state_dict(self.average)
        return sam.eval().to(self.device)

    def evaluate(self) -> Evaluation:
        """Figures of the averaged weights on the held-out scenes, in float32."""
        return summarise(outputs_and_truths(self.averaged(), self._held_out))

    @cached_property
    def _held_out(self) -> list[Batch]:
        view = view_settings(self.settings, self.sam.config)
        return list(held_out_batches(view, images=self.settings.evaluation_images, batch=8))

    def save(self, path: Path) -> None:
        """Replace the checkpoint at `path`, in one act."""
        state: dict[str, Any] = {
            "learner": self.learner.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
            "settings": json.dumps(asdict(self.settings)),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    @classmethod
    def resume(cls, path: Path, settings: TrainSettings, scenes: SceneSource | None = None) -> Training:
        """Go on from a checkpoint; the settings may differ in how long to train, not in the model."""
        training = cls(settings, scenes)
        state = torch.load(path, weights_only=True, map_location=training.device)
        training.progress = Progress(**state["progress"])
        training.learner.load_state_dict(state["learner"])
        training.average = state["average"]
        training.optimiser.load_state_dict(state["optimiser"])
        return training


def drawn_scenes(settings: TrainSettings) -> DrawnScenes:
    """Those that a training with these settings draws."""
    return DrawnScenes(settings.seed, settings.photographs, settings.photograph_share)


def _rng(device: str, *numbers: int) -> torch.Generator:
    """Random choices that depend on these numbers alone: nothing has to be kept for a resume."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64).tolist()
    return torch.Generator(device).manual_seed(state >> 1)


def _share_of_peak(schedule: Schedule, fraction: float) -> float:
    if schedule is Schedule.COSINE:
        return max(0.01, 0.5 * (1 + math.cos(math.pi * fraction)))
    return 0.1 ** sum(fraction >= drop for drop in (2 / 3, 0.963))


def view_settings(settings: TrainSettings, config: ModelConfig) -> ViewSettings:
    """Views for a model of these sizes; a thing's least size counts cells of the model's own grid."""
    fineness = settings.fineness
    return ViewSettings(
        config.input_side,
        fineness * config.mask_side,
        settings.points_per_image,
        fineness**2 * settings.min_cells,
        settings.whole_share,
        stretched=config.resize is Resize.STRETCH,
    )
