"""The smallest training, which the tests change where they are about something else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.config import TRAINABLE
from model.training.settings import TrainSettings
from tests.training.mini import MINI, MINI_2

SMALL = TrainSettings(
    model=MINI.name,
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


@pytest.fixture(scope="package", autouse=True)
def _mini_has_a_name() -> Iterator[None]:
    """As each model has that a training can be told to train."""
    with pytest.MonkeyPatch.context() as patch:
        for config in (MINI, MINI_2):
            patch.setitem(TRAINABLE, config.name, config)
        yield
