"""What the generator asks about the masks of a batch of prompts, wherever their logits are.

Two questions: counts and boxes of all that are live, and the runs of the few that stay. A device may answer later than
it is asked, so that the next question is there before it is idle; `arrived` is where the caller waits for it.
Legend: N live slots of a batch, K chosen among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from pipeline.masks.arrays import Integers
from pipeline.masks.measure import Live
from pipeline.masks.on_cpu import OnCpu
from pipeline.masks.rle import Rle
from pipeline.masks.segmenter import Predictions
from pipeline.masks.upscaling import Upscaling


class Measured(Protocol):
    """The answer to the first question, for one batch."""

    @property
    def on_its_way(self) -> bool:
        """Whether `arrived` may have to wait."""
        ...

    def arrived(self) -> Live:
        """What was asked."""
        ...

    def untraced(self, chosen_K: Integers) -> tuple[Any, ...]:
        """Of the chosen among the N what their runs can be made of. No other logits are held by it."""
        ...


class Traced(Protocol):
    """The answer to the second question."""

    def arrived(self) -> tuple[Rle, ...]:
        """The masks in their crop's frame."""
        ...


class MaskWork(Protocol):
    """Whoever answers. All masks of one crop go to one of them."""

    def measure(self, predictions: Predictions, upscaling: Upscaling, *, offset: float, least_score: float) -> Measured:
        """Counts above +offset and -offset and boxes of all live masks, at full size.

        least_score  where tight / loose is certain to be lower, counts and box may be those of `measure_masks`: of a
                     lower ratio too, and otherwise of no meaning
        """
        ...

    def trace(self, masks: Sequence[Any]) -> Traced:
        """The runs of masks that `untraced` gave."""
        ...


ON_CPU: MaskWork = OnCpu()


def work_for(predictions: Predictions) -> MaskWork:
    """Who answers for these: the GPU that their logits are on if there is Triton for it, else one CPU core."""
    if predictions.logits_PMhw.device.type != "cuda" or find_spec("triton") is None:
        return ON_CPU
    from pipeline.masks.on_gpu import ON_GPU  # who has no GPU never imports Triton

    return ON_GPU
