"""`python -m tests.fake_generate KEY=VALUE...`: the generate command with the fake segmenter in its seam.

FAKE_SECONDS is the time that an image takes. FAKE_BROKEN makes every worker fail to start.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from jobs.command import run_command
from jobs.generate import generate
from pipeline.plan.plan import FROZEN
from pipeline.settings import Settings
from tests.fakes_run import broken_weights, fake_weights, without_pandas

if __name__ == "__main__":
    without_pandas()
    seconds = float(os.environ.get("FAKE_SECONDS", "0"))
    weights = broken_weights if os.environ.get("FAKE_BROKEN") else partial(fake_weights, seconds_per_image=seconds)
    sys.exit(run_command("generate", Settings, partial(generate, find_weights=weights), frozen=FROZEN))
