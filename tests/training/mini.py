"""The smallest model to train, and `python -m tests.training.mini OVERRIDE...`, which is jobs.train that knows it."""

from __future__ import annotations

import sys

from model.config import CONFIGS, SamConfig

MINI = SamConfig(
    "mini",
    embed_dim=96,
    depth=2,
    heads=3,
    global_blocks=(1,),
    input_side=128,
    window=4,
    decoder_dim=64,
    decoder_heads=4,
    decoder_mlp=64,
    iou_head_dim=32,
)
"""A model for trainings that are about something else than its sizes: a step takes a tenth of the bundled one's."""


def main() -> int:
    from jobs import train

    CONFIGS[MINI.name] = MINI
    return train.main()


if __name__ == "__main__":
    sys.exit(main())
