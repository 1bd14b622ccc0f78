"""The smallest training, which the tests change where they are about something else."""

from __future__ import annotations

from model.training.settings import TrainSettings

SMALL = TrainSettings(
    steps=4,
    batch=2,
    replicas=1,
    points_per_image=2,
    warm_up_steps=4,
    evaluation_images=2,
    bfloat16=False,
    device="cpu",
)
"""Four steps on two images each, in float32 and in one thread."""
