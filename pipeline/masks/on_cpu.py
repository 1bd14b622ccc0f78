"""Counts, boxes and runs by compiled code on one core, at once. Logits of another device are copied here first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.masks.arrays import Floats, Integers
from pipeline.masks.measure import Live, measure_masks
from pipeline.masks.rle import Rle
from pipeline.masks.segmenter import Predictions, cells_on_host
from pipeline.masks.trace import UntracedMask
from pipeline.masks.upscaling import Upscaling


@dataclass(frozen=True, slots=True)
class MeasuredOnCpu:
    """A batch that has been measured. `logits_Nwh` are those of its live masks, transposed."""

    live: Live
    logits_Nwh: Floats
    upscaling: Upscaling

    @property
    def on_its_way(self) -> bool:
        return False

    def arrived(self) -> Live:
        return self.live

    def untraced(self, chosen_K: Integers) -> tuple[UntracedMask, ...]:
        return tuple(UntracedMask(logits_wh, self.upscaling) for logits_wh in self.logits_Nwh[chosen_K])


@dataclass(frozen=True, slots=True)
class TracedOnCpu:
    """Masks that have been traced."""

    masks: tuple[Rle, ...]

    def arrived(self) -> tuple[Rle, ...]:
        return self.masks


class OnCpu:
    """See `MaskWork`."""

    def measure(
        self, predictions: Predictions, upscaling: Upscaling, *, offset: float, least_score: float
    ) -> MeasuredOnCpu:
        slot_N, logits_Nwh = cells_on_host(predictions, upscaling)
        measures = measure_masks(logits_Nwh, upscaling, offset=offset, least_score=least_score)
        predicted_iou_N = predictions.predicted_iou_PM.flatten().cpu().numpy()[slot_N]
        return MeasuredOnCpu(Live(slot_N, predicted_iou_N, measures), logits_Nwh, upscaling)

    def trace(self, masks: Sequence[UntracedMask]) -> TracedOnCpu:
        return TracedOnCpu(tuple(mask.traced() for mask in masks))
