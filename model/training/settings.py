"""Every number of a training, with its default and unit. The only home of a default."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LossSettings:
    """Weights of the terms; what each is, losses.py says."""

    focal_weight: float = 2.0
    """Per-cell term. The paper's 20 goes with gamma 2, whose values are several times smaller than gamma 0's."""
    focal_gamma: float = 0.0
    """0 is plain cross-entropy, which gives decisive logits (stability); the paper has 2."""
    dice_weight: float = 2.0
    iou_weight: float = 1.0
    """Weight of the squared error of the predicted IoU."""
    unused_pull: float = 0.15
    """Weight of outputs that no truth was assigned to; each is drawn to its nearest truth."""
    dense_weight: float = 1.0
    """Weight of the dense task (dense.py)."""
    dense_queries: int = 48
    """Tokens of an image asked in it."""


@dataclass(frozen=True)
class TrainSettings:
    """One training."""

    model: str = "tiny"
    """A name of model.sam.CONFIGS."""
    seed: int = 1
    minutes: float = 70.0
    """Wall time to spend; the schedule follows the clock."""
    steps: int | None = None
    """If set, the schedule follows steps and `minutes` is ignored."""
    start: str = ""
    """Weights of the same sizes to start from, in a layout that model.checkpoint takes; empty is from nothing."""
    batch: int = 8
    """Images a step."""
    learning_rate: float = 1e-3
    """Peak; falls along a half cosine over the whole training."""
    replicas: int = 2
    """Threads that share the images of a step, one core each."""
    points_per_image: int = 5
    min_cells: int = 24
    """Truths with fewer low-resolution cells than this are not asked for."""
    views_per_scene: int = 6
    """Crops taken of a drawn scene before it is dropped: drawing costs more than cropping."""
    follow_up_share: float = 0.15
    """Share of steps with a second prompt (correction point and mask, or a box); it trains the single-mask output."""
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    """Of the averaged weights, which are the ones evaluated and exported."""
    bfloat16: bool = True
    """Autocast of the forward pass; weights and losses stay in float32."""
    loss: LossSettings = field(default_factory=LossSettings)
    log_every: int = 50
    """Steps."""
    evaluate_every_s: float = 420.0
    save_every_s: float = 120.0
    evaluation_images: int = 48
