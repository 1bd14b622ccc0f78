"""The smallest model to train, and `python -m tests.training.mini OVERRIDE...`, which is jobs.train that knows it."""

from __future__ import annotations

import sys

from model.config import TRAINABLE, HieraConfig, SamConfig

MINI = SamConfig(
    "mini",
    embed_dim=96,
    depth=2,
    heads=3,
    global_blocks=(1,),
    input_side=128,
    window=4,
    decoder_dim=64,
    decoder_mlp=64,
    iou_head_dim=32,
)
"""A model for trainings that are about something else than its sizes: a step takes a tenth of that of `tiny`."""
MINI_2 = HieraConfig(
    "mini_2",
    dims=(16, 32, 64, 128),
    depths=(1, 1, 2, 1),
    heads=1,
    global_blocks=(3,),
    windows=(8, 4, 8, 4),
    background=4,
    input_side=128,
    decoder_dim=64,
    decoder_mlp=64,
    iou_head_dim=32,
)
"""The like of SAM 2's family."""


def main() -> int:
    from jobs import train

    TRAINABLE.update({MINI.name: MINI, MINI_2.name: MINI_2})
    return train.main()


if __name__ == "__main__":
    sys.exit(main())
