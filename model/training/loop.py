"""The loop of a training: stages, schedule, averaged weights, checkpoints. Resumable at any step.

Owns when things happen; what a step minimises is in losses.py, what it sees in batches.py.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.sam import CONFIGS, Sam, SamConfig
from model.training.batches import Batch, TrainingBatches, ViewSettings, held_out_batches, prefetched, split_batch
from model.training.dense import Learner
from model.training.evaluate import Evaluation, outputs_and_truths, summarise
from model.training.forward import batch_loss
from model.training.grow import grow
from model.training.losses import PromptLoss
from model.training.replicas import Replicas
from model.training.settings import StageSettings, TrainSettings

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    elapsed_s: float = 0.0
    images: int = 0


class Training:
    """A model in training and everything that has to survive an interruption."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.progress = Progress()
        torch.manual_seed(settings.seed)
        self._enter_stage(None, None)

    @property
    def stage(self) -> StageSettings:
        return self.settings.stages[self.progress.stage]

    @property
    def sam(self) -> Sam:
        """The model itself, without what only training needs."""
        return self.learner.sam

    @property
    def fraction(self) -> float:
        """Share of the training that is over, by steps if they are set, else by the clock."""
        if self.settings.steps is not None:
            return self.progress.step / self.settings.steps
        return self.progress.elapsed_s / (60 * self.settings.minutes)

    def _enter_stage(self, weights: dict[str, Tensor] | None, average: dict[str, Tensor] | None) -> None:
        """Build the model for this stage's input side, with weights grown from the last one's, and its optimiser."""
        self.learner = Learner(stage_config(self.settings, self.stage))
        own = self.learner.state_dict()
        if weights is not None:
            self.learner.load_state_dict(grow(weights, own))
        self.replicas = Replicas(self.learner, self.settings.replicas)
        own = self.sam.state_dict()
        source = average if average is not None else own
        self.average = {key: value.detach().clone().contiguous() for key, value in grow(source, own).items()}
        decayed = [p for p in self.learner.parameters() if p.dim() > 1]
        plain = [p for p in self.learner.parameters() if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=self.stage.learning_rate, betas=(0.9, 0.98))

    @property
    def source(self) -> TrainingBatches:
        """This stage's batches; step n of a stage takes number n."""
        return TrainingBatches(
            self.settings.seed + self.progress.stage,
            view_settings(self.settings, self.sam.config),
            batch=self.stage.batch,
            views_per_scene=self.settings.views_per_scene,
        )

    def run(self, checkpoint: Path) -> Evaluation:
        """Train to the end, logging and saving on the way; returns the last evaluation."""
        for stage in range(self.progress.stage, len(self.settings.stages)):
            if stage != self.progress.stage:
                self.progress.stage, self.progress.stage_step = stage, 0
                self._enter_stage(self.learner.state_dict(), self.average)
            if self.fraction < self.stage.until:
                with closing(prefetched(self.source, start=self.progress.stage_step)) as batches:
                    self._run_stage(batches, checkpoint)
        self.save(checkpoint)
        evaluation = self.evaluate()
        log.info("held out, final: %s", evaluation)
        return evaluation

    def _run_stage(self, batches: Iterator[Batch], checkpoint: Path) -> None:
        last = saved = evaluated = time.monotonic()
        means = Means()
        while self.fraction < self.stage.until:
            means.add(self.step(next(batches)), self.stage.batch)
            now = time.monotonic()
            self.progress.elapsed_s += now - last
            last = now
            if self.progress.step % self.settings.log_every == 0:
                log.info("%s", means.line(self))
                means = Means()
            if now - saved > self.settings.save_every_s:
                self.save(checkpoint)
                saved = now
            if now - evaluated > self.settings.evaluate_every_s:
                log.info("held out: %s", self.evaluate())
                evaluated = last = time.monotonic()

    def step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; returns what was measured on the way."""
        self.learner.train()
        warm = min(1.0, (self.progress.stage_step + 1) / self.settings.warm_up_steps)
        rate = self.stage.learning_rate * warm * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, self.fraction))))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        follow_up = bool(torch.rand(()) < self.settings.follow_up_share)

        def backward(learner: Learner, part: Batch) -> PromptLoss:
            loss = batch_loss(learner, part, self.settings.loss, bfloat16=self.settings.bfloat16, follow_up=follow_up)
            loss.total.backward()
            return loss.detach()

        parts = split_batch(batch, self.settings.replicas)
        # With so few tokens the fused kernel's backward pass is slower than plain products (a tenth of a step).
        with sdpa_kernel(SDPBackend.MATH):
            losses = self.replicas.backward(parts, backward)
        norm = torch.nn.utils.clip_grad_norm_(self.learner.parameters(), self.settings.clip_norm)
        self.optimiser.step()
        self.progress.step += 1
        self.progress.stage_step += 1
        self.progress.images += len(batch.sizes_hw)
        self._update_average()
        means = {name: sum(loss.figures()[name] for loss in losses) / len(losses) for name in losses[0].figures()}
        return {**means, "norm": float(norm), "lr": rate}

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
        return sam.eval()

    def evaluate(self) -> Evaluation:
        """Figures of the averaged weights on the held-out scenes, in float32."""
        view = view_settings(self.settings, self.sam.config)
        batches = held_out_batches(view, images=self.settings.evaluation_images, batch=8)
        return summarise(outputs_and_truths(self.averaged(), batches))

    def save(self, path: Path) -> None:
        """Replace the checkpoint at `path`, in one act."""
        state: dict[str, Any] = {
            "learner": self.learner.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
            "rng": torch.get_rng_state(),
            "settings": asdict(self.settings),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    @classmethod
    def resume(cls, path: Path, settings: TrainSettings) -> Training:
        """Go on from a checkpoint; the settings may differ in how long to train, not in the model or its stages."""
        state = torch.load(path, weights_only=True)
        training = cls(settings)
        training.progress = Progress(**state["progress"])
        training._enter_stage(None, None)
        training.learner.load_state_dict(state["learner"])
        training.average = state["average"]
        training.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])
        return training


class Means:
    """Running means between two log lines."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = self._images = 0
        self._since = time.monotonic()

    def add(self, measured: dict[str, float], images: int) -> None:
        for name, value in measured.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._images += images

    def line(self, training: Training) -> str:
        """One line of progress."""
        rate = self._images / (time.monotonic() - self._since)
        parts = [f"{name} {total / self._count:.4g}" for name, total in self._sums.items()]
        done = f"step {training.progress.step} ({100 * training.fraction:.1f} %), {training.progress.elapsed_s:.0f} s"
        return f"{done}: {', '.join(parts)}, {rate:.1f} images/s"


def stage_config(settings: TrainSettings, stage: StageSettings) -> SamConfig:
    """The named model's sizes at a stage's input side."""
    return replace(CONFIGS[settings.model], input_side=stage.input_side)


def view_settings(settings: TrainSettings, config: SamConfig) -> ViewSettings:
    """Views for a model of these sizes; a thing's least size counts cells of the model's own grid."""
    return ViewSettings(config.input_side, config.mask_side, settings.points_per_image, settings.min_cells)
