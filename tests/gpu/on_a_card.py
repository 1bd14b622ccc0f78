"""What only a card can say of the kernels and of waits; docs/gpu.md names it. In a process of its own, uninterpreted.

    python -m tests.gpu.on_a_card

Ends with an error if a call waits for the device without an event, if an encoding is too far from float32's, or if
counts, boxes or runs differ from those of compiled code on the same logits. Prints how long both questions take, by the
size of tiles and by warps.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from model.crop_batches import GPU_CROPS
from model.load import load_segmenter
from pipeline.masks.crops import grid_points
from pipeline.masks.measure import Live
from pipeline.masks.on_cpu import OnCpu
from pipeline.masks.on_gpu import SIDE, WARPS, OnGpu
from pipeline.masks.rle import Rle
from pipeline.masks.segmenter import Predictions, upscaling_of
from pipeline.masks.upscaling import Upscaling
from pipeline.masks.work import MaskWork
from pipeline.settings import Recipe
from pipeline.work.device import Device, fix_torch
from pipeline.work.stopwatch import Stopwatch
from tests.masks.conftest import scene

THRESHOLD = 0.42
WITHIN = {"bf16x3": 1e-4, "bf16": 3e-2}
"""Of the norm of what float32 gives."""
RECIPE = Recipe(points_per_side=16, crop_n_layers=1, pred_iou_thresh=THRESHOLD, stability_score_thresh=0.7)


def answers(work: MaskWork, predictions: Predictions, upscaling: Upscaling, *, most: int) -> tuple[Live, list[Rle]]:
    """To both questions; the runs of the first `most` live masks."""
    measured = work.measure(predictions, upscaling, offset=1.0, least_score=-1)
    live = measured.arrived()
    return live, list(work.trace(measured.untraced(np.arange(min(most, len(live.slot_N))))).arrived())


def same(one: tuple[Live, list[Rle]], other: tuple[Live, list[Rle]]) -> bool:
    numbers = ("slot_N", "predicted_iou_N"), ("tight_N", "loose_N", "box_xyxy_N4")
    return (
        all(np.array_equal(getattr(one[0], name), getattr(other[0], name)) for name in numbers[0])
        and all(np.array_equal(getattr(one[0].measures, name), getattr(other[0].measures, name)) for name in numbers[1])
        and len(one[1]) == len(other[1])
        and all(np.array_equal(a.run_M, b.run_M) for a, b in zip(one[1], other[1], strict=True))
    )


def predicted(segmenter: Any, hw: tuple[int, int], *, points_per_side: int) -> tuple[Predictions, Upscaling]:
    [crop] = segmenter.encode([scene(*hw, seed=3)])
    predictions = segmenter.decode(crop, grid_points(hw, points_per_side), pred_iou_thresh=THRESHOLD)
    return predictions, upscaling_of(predictions, segmenter, crop)


def milliseconds(ask: Any) -> float:
    """The median of nine."""
    ask()
    times = []
    for _ in range(9):
        begun, over = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        ask()
        over.record()
        over.synchronize()
        times.append(begun.elapsed_time(over))
    return sorted(times)[4]


def encodings() -> Iterator[str]:
    """How far the precisions for tensor cores are from float32, and whether a crop's place in its batch matters."""
    images = [scene(480, 640, seed=seed) for seed in range(GPU_CROPS)]
    exact = load_segmenter(name="tiny", checkpoint=None, device="cuda").encode(images)
    for precision, within in WITHIN.items():
        segmenter = load_segmenter(name="tiny", checkpoint=None, device="cuda", precision=precision)
        found, turned = segmenter.encode(images), segmenter.encode(images[::-1])[::-1]
        error = max(
            off(one.image.upscaled_NE, other.image.upscaled_NE) for one, other in zip(found, exact, strict=True)
        )
        if error > within:
            sys.exit(f"{precision}: an encoding is off by {error:.1e}, more than {within:.0e}")
        places = all(
            torch.equal(one.image.upscaled_NE, other.image.upscaled_NE)
            for one, other in zip(found, turned, strict=True)
        )
        yield f"{precision}: off by {error:.1e}; the place in a batch {'changes nothing' if places else 'CHANGES BITS'}"


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("there is no GPU that torch can use")
    fix_torch(1)
    out, image_HW3 = sys.stdout.write, scene(480, 640, seed=3)
    for precision in ("bf16", "bf16x3", "fp32"):
        segmenter = load_segmenter(name="tiny", checkpoint=None, device="cuda", precision=precision)
        device = Device(segmenter, RECIPE)
        device.generate(image_HW3, Stopwatch())  # compiles the kernels and makes the graphs
        torch.cuda.set_sync_debug_mode("error")
        masks = device.generate(image_HW3, Stopwatch()).masks
        torch.cuda.set_sync_debug_mode("default")
        about = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {precision}"
        out(f"{about}: {len(masks)} masks, no wait but by events\n")
    for line in encodings():
        out(f"{line}\n")
    for hw in ((480, 640), (60, 40), (1500, 2250)):
        predictions, upscaling = predicted(segmenter, hw, points_per_side=32)
        on_cpu = answers(OnCpu(), predictions, upscaling, most=100)
        for side, warps in ((SIDE, WARPS), (32, 4)):
            work = OnGpu(side=side, warps=warps)
            if not same(answers(work, predictions, upscaling, most=100), on_cpu):
                sys.exit(f"{hw}, tiles of {side}: counts, boxes or runs are not those of compiled code")
            asked = work.measure(predictions, upscaling, offset=1.0, least_score=-1)
            held = asked.untraced(np.arange(min(100, len(on_cpu[0].slot_N))))
            measure = milliseconds(partial(work.measure, predictions, upscaling, offset=1.0, least_score=-1))
            trace = milliseconds(partial(work.trace, held))
            out(f"{hw} tiles of {side}, {warps} warps: equal; measure {measure:.2f} ms, trace {trace:.2f} ms\n")


if __name__ == "__main__":
    main()
