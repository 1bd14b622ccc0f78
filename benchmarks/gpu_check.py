"""Is my GPU right, how fast is it, and where does the time go? One page: `make gpu-check`.

The masks of a CPU in float32 are the reference, on drawn scenes with `tiny`, at thresholds that let many
pass. Seconds are the wall clock of whole images, one at a time, and the device's own clock for its two calls. What is
compared and measured is `model.precision` by `model.precision`. The exit code is 1 if a mask of fp32 or bf16x3 is
missing, and 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.cases import LENIENT, drawn_image, named_recipe
from benchmarks.peer_masks import PeerMask
from benchmarks.weights import find_weights
from model.config import CONFIGS
from model.load import load_segmenter
from pipeline.masks.agreement import Agreement, agreement, total
from pipeline.masks.segmenter import Segmenter, placed
from pipeline.records import ImageMasks
from pipeline.settings import Precision, Recipe
from pipeline.work.device import Device, fix_torch
from pipeline.work.stopwatch import Stopwatch

Image_HW3 = npt.NDArray[np.uint8]
Load = Callable[[str, str], Segmenter[Any]]
"""A device and a precision -> the model there."""

SIZE_HW = 683, 1024
EVERY_MASK = ("fp32", "bf16x3")
"""In these precisions each mask of the CPU is there, with an IoU of at least `agreement.SAME_IOU`."""
DISAGREES, NO_GPU = 1, 2
"""Exit codes."""


@dataclass(frozen=True)
class Job:
    """What is measured. The agreement is always that of `tiny`, which a CPU runs in seconds."""

    model: str = "tiny"
    weights: str | None = None
    """Path of a checkpoint; null takes the bundled weights, as they are or widened."""
    recipe: str = "sam"
    images: int = 3
    repetitions: int = 5
    folder: Path = Path("out/bench/weights")
    """Where widened weights are kept."""


@dataclass(frozen=True)
class Speed:
    """Medians over images, in milliseconds.

    device  of its two calls by the device's clock; what they do side by side with the host counts here alone
    rest    measuring masks, duplicates, runs and clean-up, and waiting for the device
    """

    image: float
    encode: float
    points: float
    masks: int
    peak_gb: float

    @property
    def rest(self) -> float:
        return max(0.0, self.image - self.encode - self.points)


class Clocked:
    """A segmenter whose calls are timed by events of the device, which nobody waits for meanwhile."""

    def __init__(self, segmenter: Segmenter[Any]) -> None:
        self._segmenter = segmenter
        self.calls: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {"encode": [], "decode": []}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._segmenter, name)

    def placed(self, image_HW3: Image_HW3) -> Any:
        return placed(self._segmenter, image_HW3)

    def encode(self, crops_HW3: Sequence[Image_HW3]) -> Sequence[Any]:
        return self._clocked("encode", lambda: self._segmenter.encode(crops_HW3))

    def decode(self, crop: Any, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float) -> Any:
        call = self._segmenter.decode
        return self._clocked("decode", lambda: call(crop, points_xy_P2, pred_iou_thresh=pred_iou_thresh))

    def _clocked(self, name: str, call: Callable[[], Any]) -> Any:
        begun, over = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        result = call()
        over.record()
        self.calls[name].append((begun, over))
        return result

    def milliseconds(self, name: str) -> float:
        """Of all calls so far, once the device has done them."""
        return sum(begun.elapsed_time(over) for begun, over in self.calls[name])


@dataclass
class Page:
    """What was found, as far as it is found."""

    title: str
    agreements: dict[str, Agreement] = field(default_factory=dict[str, Agreement])
    speeds: dict[str, Speed] = field(default_factory=dict[str, Speed])

    @property
    def wrong(self) -> list[str]:
        return [
            name
            for name, found in self.agreements.items()
            if name in EVERY_MASK and not found.reference == found.count == found.matched
        ]


def masks(image: ImageMasks) -> list[PeerMask]:
    return [PeerMask(mask.counts, mask.predicted_iou, mask.stability_score) for mask in image.masks]


def compared(
    load: Load, images: Sequence[Image_HW3], recipe: Recipe, precisions: Sequence[str] = tuple(Precision)
) -> Iterator[tuple[str, Agreement]]:
    """For each precision on the GPU its agreement with the CPU's float32, all images together."""
    on_cpu = Device(load("cpu", "fp32"), recipe)
    reference = [masks(on_cpu.generate(image_HW3, Stopwatch())) for image_HW3 in images]
    for precision in precisions:
        device = Device(load("cuda", precision), recipe)
        found = [masks(device.generate(image_HW3, Stopwatch())) for image_HW3 in images]
        yield (
            precision,
            total(
                [
                    agreement(one, other, image_hw=image_HW3.shape[:2])
                    for one, other, image_HW3 in zip(reference, found, images, strict=True)
                ]
            ),
        )


def measured(segmenter: Segmenter[Any], images: Sequence[Image_HW3], recipe: Recipe, *, repetitions: int) -> Speed:
    """After two rounds in which kernels are compiled and graphs are made."""
    for _ in range(2):
        for image_HW3 in images:
            Device(segmenter, recipe).generate(image_HW3, Stopwatch())
    torch.cuda.reset_peak_memory_stats()
    rows: list[tuple[float, float, float, int]] = []
    for image_HW3 in [*images] * repetitions:
        clocked = Clocked(segmenter)
        begun = time.perf_counter()
        found = Device(cast(Segmenter[Any], clocked), recipe).generate(image_HW3, Stopwatch())
        seconds = time.perf_counter() - begun
        rows.append((1000 * seconds, clocked.milliseconds("encode"), clocked.milliseconds("decode"), len(found.masks)))
    image, encode, points, count = (median(column) for column in zip(*rows, strict=True))
    return Speed(image, encode, points, round(count), torch.cuda.max_memory_allocated() / 1e9)


def text(page: Page, job: Job) -> str:
    """The page."""
    lines = [page.title, "", f"The masks of a CPU, with `tiny` ({job.images} images):", ""]
    lines += ["precision   masks   the CPU's   IoU >= 0.9999   IoU >= 0.9   mean IoU   scores differ by at most"]
    for name, found in page.agreements.items():
        lines.append(
            f"{name:9} {found.count:7} {found.reference:11} {found.matched:15} {found.similar:12}"
            f" {found.mean_iou:10.5f}   {found.score_difference:.1e}"
        )
    if page.speeds:
        lines += [
            "",
            f"Speed of {job.model}, recipe {job.recipe}, {SIZE_HW[1]} x {SIZE_HW[0]}, one image at a time:",
            "",
        ]
        lines += ["precision   images/s   ms an image   encode   points   the rest   masks   peak GB"]
    for name, speed in page.speeds.items():
        lines.append(
            f"{name:9} {1000 / speed.image:10.2f} {speed.image:13.1f} {speed.encode:8.1f} {speed.points:8.1f}"
            f" {speed.rest:10.1f} {speed.masks:7} {speed.peak_gb:9.2f}"
        )
    lines += ["", *(f"WRONG: {name} has not every mask of the CPU." for name in page.wrong)]
    if not page.wrong:
        lines.append("Right: fp32 and bf16x3 have every mask of the CPU.")
    lines.append("docs/gpu.md says what to expect, and how to look closer.")
    return "\n".join(lines) + "\n"


def check(job: Job) -> Page:
    """On a machine with a GPU."""
    fix_torch(1)
    triton = "with Triton" if find_spec("triton") else "WITHOUT Triton: nothing is fused, and masks are made on the CPU"
    page = Page(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {triton}")
    images = [drawn_image("tiny", 100 * number, SIZE_HW) for number in range(job.images)]

    def tiny(device: str, precision: str) -> Segmenter[Any]:
        return load_segmenter(name="tiny", device=device, precision=precision)

    page.agreements |= dict(compared(tiny, images, LENIENT))
    checkpoint = find_weights(job.model, given=job.weights, folder=job.folder).path.read_bytes()
    recipe = LENIENT if job.model == "tiny" else named_recipe(job.recipe)
    images = [drawn_image(job.model, 100 * number, SIZE_HW) for number in range(job.images)]
    for precision in Precision:
        segmenter = load_segmenter(name=job.model, checkpoint=checkpoint, device="cuda", precision=precision)
        page.speeds[precision] = measured(segmenter, images, recipe, repetitions=job.repetitions)
        del segmenter
        torch.cuda.empty_cache()
    return page


def parse(arguments: Sequence[str]) -> Job:
    """A job from a command line; what it does not name keeps its default."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description="Is this machine's GPU right, how fast is it, and where does the time go?",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--model", choices=list(CONFIGS), help="whose speed is measured")
    parser.add_argument("--weights", metavar="PATH", help="checkpoint instead of the bundled or widened weights")
    parser.add_argument("--recipe", choices=("sam", "sa1b_paper", "fast"))
    for name in ("images", "repetitions"):
        parser.add_argument(f"--{name}", type=int)
    return Job(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str]) -> int:
    job = parse(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write(
            f"There is no GPU to check: torch {torch.__version__} sees no CUDA device. Run this where nvidia-smi lists "
            "a GPU, with a torch built for CUDA (its version must not end in +cpu).\n"
        )
        return NO_GPU
    page = check(job)
    sys.stdout.write(text(page, job))
    return DISAGREES if page.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
