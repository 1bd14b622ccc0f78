"""Does another device or precision find the same masks? `python -m benchmarks.parity --device cuda`.

Held against the CPU path in float32, on drawn scenes: ours in float32 (without TF32), bf16x3 and bf16 on the device, or
in bf16 alone where the device is the CPU. Prints a table; the exit code is 1 if a float32 that must agree does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.cases import drawn_image, named_recipe
from benchmarks.device import DEVICES, DeviceError, check
from benchmarks.peer_masks import PeerMask
from benchmarks.peers import Image_HW3, Setup, build_ours
from benchmarks.weights import find_weights
from model.config import CONFIGS
from pipeline.masks.agreement import Agreement, agreement, total
from pipeline.settings import Recipe

COLUMNS = (
    "Maskmill",
    "images",
    "masks",
    "of the CPU's",
    "IoU >= 0.9999",
    "IoU >= 0.9",
    "mean IoU",
    "least IoU",
    "score diff",
)
DISAGREES, UNUSABLE_DEVICE = 1, 2
"""Exit codes."""
ANOTHER_SCENE = 100
"""Between the numbers of images, each of which may show several scenes."""


@dataclass(frozen=True)
class ParityOptions:
    """What is compared, on what."""

    device: str = "cpu"
    model: str = "tiny"
    weights: str | None = None
    """Path of a checkpoint; null takes the bundled weights, as they are or widened."""
    recipe: str = "sam"
    images: int = 6
    width: int = 1024
    height: int = 683
    pred_iou_thresh: float | None = None
    """Null keeps the recipe's; a lower one lets more masks be compared."""
    stability_score_thresh: float | None = None
    """As `pred_iou_thresh`."""
    folder: Path = Path("out/bench/weights")
    """Where widened weights are kept."""

    def chosen_recipe(self) -> Recipe:
        asked = {"pred_iou_thresh": self.pred_iou_thresh, "stability_score_thresh": self.stability_score_thresh}
        return replace(named_recipe(self.recipe), **{key: value for key, value in asked.items() if value is not None})


def compare(options: ParityOptions) -> dict[str, list[Agreement]]:
    """For each of the others its agreement with the CPU's float32, image by image."""
    weights = str(find_weights(options.model, given=options.weights, folder=options.folder).path)
    cpu = Setup(options.model, weights)
    on_device = replace(cpu, device=options.device)
    setups = {} if options.device == "cpu" else {f"{options.device}, fp32": on_device}
    if options.device != "cpu":
        setups |= {f"{options.device}, bf16x3": replace(on_device, precision="bf16x3")}
    setups |= {f"{options.device}, bf16": replace(on_device, precision="bf16")}
    size_hw, recipe = (options.height, options.width), options.chosen_recipe()
    scenes = range(0, options.images * ANOTHER_SCENE, ANOTHER_SCENE)
    images = [drawn_image(options.model, scene, size_hw) for scene in scenes]
    reference = _masks(cpu, images, recipe)
    return {
        name: [
            agreement(one, other, image_hw=size_hw)
            for one, other in zip(reference, _masks(setup, images, recipe), strict=True)
        ]
        for name, setup in setups.items()
    }


@torch.no_grad()
def _masks(setup: Setup, images: Sequence[Image_HW3], recipe: Recipe) -> list[list[PeerMask]]:
    ours = build_ours(setup)
    return [ours.masks(ours.generate(image_HW3, recipe)) for image_HW3 in images]


def markdown(found: dict[str, list[Agreement]]) -> str:
    """One row for each of the others, all images together."""
    rows = ["| " + " | ".join(_cells(name, agreements)) + " |\n" for name, agreements in found.items()]
    return "".join([f"| {' | '.join(COLUMNS)} |\n", "|---" * len(COLUMNS) + "|\n", *rows])


def _cells(name: str, agreements: Sequence[Agreement]) -> Iterator[str]:
    all_images = total(agreements)
    yield from (name, str(len(agreements)), str(all_images.count), str(all_images.reference))
    for pairs in (all_images.matched, all_images.similar):
        yield f"{pairs} ({pairs / all_images.reference:.1%})" if all_images.reference else "0"
    yield f"{all_images.mean_iou:.4f}"
    yield f"{all_images.least_iou:.4f}"
    yield f"{all_images.score_difference:.1e}"


def must_agree(found: dict[str, list[Agreement]]) -> list[str]:
    """The float32s that do not find the CPU's masks."""
    return [name for name, agreements in found.items() if "fp32" in name and not all(one.agrees for one in agreements)]


def parse(arguments: Sequence[str]) -> ParityOptions:
    """Options from a command line; what it does not name keeps its default."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity",
        description="Masks of another device or precision beside the CPU's.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--device", choices=DEVICES)
    parser.add_argument("--model", choices=list(CONFIGS))
    parser.add_argument("--weights", metavar="PATH", help="checkpoint instead of the bundled or widened weights")
    parser.add_argument("--recipe", choices=("sam", "sa1b_paper", "fast"))
    for name in ("images", "width", "height"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("pred-iou-thresh", "stability-score-thresh"):
        parser.add_argument(f"--{name}", type=float, help="instead of the recipe's: lower ones compare more masks")
    return ParityOptions(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    try:
        check(options.device)
    except DeviceError as error:
        sys.stderr.write(f"{error}.\n")
        return UNUSABLE_DEVICE
    found = compare(options)
    sys.stdout.write(markdown(found))
    wrong = must_agree(found)
    for name in wrong:
        sys.stderr.write(f"{name} does not agree with the CPU: masks, order or scores (beyond 1e-4) differ.\n")
    return DISAGREES if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
