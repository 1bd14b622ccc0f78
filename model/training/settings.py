"""Every number of a training, with its default and unit. The only home of a default.

Defaults are those that serve the bundled model. What SAM's paper has (arXiv:2304.02643, section 3 and appendix A)
stands beside each; the whole of it is LossSettings(focal_weight=20, focal_gamma=2, dice_weight=1) and
TrainSettings(batch=256, learning_rate=8e-4, schedule=steps, warm_up_steps=250, weight_decay=0.1, layer_decay=0.8,
drop_path=0.4, follow_up_share=1, follow_ups=10), but for its optimiser, which is AdamW alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

KEEP_IOU, KEEP_STABILITY = 0.88, 0.95
"""What the generator asks of a mask's predicted IoU (above) and stability (at least): the defaults of its recipe, to
which a test holds these, because model/ imports nothing of ours."""


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"
    """Along half a cosine, to a hundredth."""
    STEPS = "steps"
    """To a tenth at two thirds of the training, to a hundredth at 96 % of it: the paper's 60,000th and 86,666th of
    90,000 steps."""


@dataclass(frozen=True)
class LossSettings:
    """Weights of the terms; what each is, losses.py says."""

    focal_weight: float = 2.0
    """Per-cell term. The paper's 20 goes with gamma 2, whose values are several times smaller than gamma 0's."""
    focal_gamma: float = 0.0
    """0 is plain cross-entropy, which gives decisive logits (stability); the paper has 2."""
    dice_weight: float = 2.0
    """The paper: 1."""
    iou_weight: float = 1.0
    """Weight of the error of the predicted IoU. The paper: 1."""
    iou_absolute: bool = False
    """Whether that error counts as it is, as SAM 2 has it (arXiv:2408.00714), and not squared."""
    unused_pull: float = 0.15
    """Weight of outputs that no truth was assigned to; each is drawn to its nearest truth. The paper asks for one truth
    and trains the output nearest to it: 0, with points_per_image truths drawn one by one."""
    boundary_weight: float = 0.0
    """How much more a cell at the outline of a truth counts in the per-cell term: 1 + this."""
    dense_weight: float = 1.0
    """Weight of the dense task (dense.py); the paper has no such task."""
    dense_queries: int = 48
    """Tokens of an image asked in it."""


@dataclass(frozen=True)
class TrainSettings:
    """One training."""

    model: str = "small"
    """A name of model.config.TRAINABLE."""
    device: str = "auto"
    """auto (cuda if there is one), cpu or cuda."""
    seed: int = 1
    steps: int = 8000
    """Length of the training; the schedule follows it, so equal settings give equal weights on one machine."""
    fineness: int = 1
    """Cells of a truth along a side of a low-resolution cell. The logits are interpolated to them, so 2 teaches where
    in a cell an outline runs. The paper: 1."""
    pool: int = 0
    """If set, that many scenes are kept on the device, where views are made of them; the processes draw as fast as they
    can. For a GPU. No two trainings are alike then. 0: the processes make the views, and equal settings equal ones."""
    minutes: float | None = None
    """If set, wall time to spend instead; the schedule follows the clock, and no two trainings are alike."""
    start: str = ""
    """Weights of the same model to start from, in a layout that model.checkpoint takes; empty is from nothing."""
    start_decoder: str = ""
    """Weights of another model, whose prompt encoder and decoder to start from; the image encoder is new."""
    photographs: str = ""
    """File of textures and cut-outs (`python -m model.training photographs`) that a share of the drawn scenes gets."""
    photograph_share: float = 0.5
    """That share, in [0, 1]."""
    source: str = ""
    """Images with masks to train on beside drawn scenes: the OUT of a finished run, or a tar or folder of SA-1B's
    images and annotation files."""
    source_share: float = 0.5
    """Share of these among the scenes, in [0, 1]."""
    source_side: int = 768
    """Pixels: larger images from `source` are scaled until their longer side is this."""
    batch: int = 8
    """Images a step. The paper: 256."""
    learning_rate: float = 1e-3
    """Peak. The paper: 8e-4."""
    schedule: Schedule = Schedule.COSINE
    layer_decay: float = 1.0
    """Factor of the learning rate from each encoder block to the one before it. The paper: 0.8 (from MAE weights)."""
    drop_path: float = 0.0
    """Chance that an image skips a branch of the last encoder block; it falls linearly to 0 at the first.
    The paper: 0.4."""
    replicas: int = 2
    """Threads that share the images of a step, one core each; on CUDA always 1."""
    workers: int = 1
    """Processes that draw scenes; no batch depends on their number."""
    points_per_image: int = 5
    """Prompts of each image. The paper: up to 64 masks a GPU."""
    min_cells: int = 6
    """Truths with fewer low-resolution cells than this are not asked for."""
    views_per_scene: int = 6
    """Taken of a scene before it is dropped: drawing costs more than cropping."""
    whole_share: float = 0.4
    """Share of the views that show a whole scene, where most things are small; the others are crops."""
    follow_up_share: float = 0.15
    """Share of steps whose prompts are followed up (box, correction points, mask); that trains the single-mask output.
    The paper: 1."""
    follow_ups: int = 1
    """Prompts that follow the first point in such a step. From 3 on the last one, and one of those before at random,
    brings no new point. The paper: 10, of which 8 do."""
    box_share: float = 0.5
    """Chance that a follow-up begins anew from a noised box instead of correcting the point's answer.
    The paper: 0.5."""
    weight_decay: float = 0.05
    """The paper: 0.1."""
    warm_up_steps: int = 100
    """The paper: 250."""
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
