"""CPU seconds and memory of models on one image: `python -m benchmarks.small_models [PEER ...]`.

Each peer has one process with one thread, one after the other. Weights are random and calibrated on the image
(reference/official.py and random_sam_2.py), the same for both peers of a model: they tell of time and not of quality.
Loading and calibration are not counted, nor is a first small image. Of two peers of one model it is told how many of
their masks are the same to the pixel.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.cases import Image_HW3
from benchmarks.reference.mobile import build_mobile, mobile_sam
from benchmarks.reference.official import calibrate, calibrated_official
from benchmarks.reference.random_sam_2 import THRESHOLD, calibrated_sam_2
from model.config import MODELS, Sam2Config, SamConfig
from model.sam import Sam
from model.segmenter import TorchSegmenter
from model.training.scenes import held_out_scene
from pipeline.masks.generator import generate_masks
from pipeline.settings import Recipe

IMAGE_HW = (683, 1024)
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
"""Of Linux."""
PEERS = (
    *("mobile_sam", "mobile_sam released", "slimsam_77", "slimsam_50", "vit_b"),
    *("sam2.1_tiny", "sam2.1_tiny released", "sam2.1_base_plus", "sam2.1_base_plus released", "edgetam"),
)
"""Those without a name here are measured if they are asked for, such as `sam3`."""

Masks = Callable[[Image_HW3], list[str]]
"""The run lengths of an image's masks."""


def measure(peer: str) -> dict[str, Any]:
    """In this process, which must be fresh: its peak memory is told."""
    cast(Any, torch).set_num_threads(1)
    image_HW3 = held_out_scene(77, size_hw=IMAGE_HW).rgb_HW3
    name, _, released = peer.partition(" ")
    if isinstance(config := MODELS[name], Sam2Config):
        masks = (_released_sam_2 if released else _our_sam_2)(config, image_HW3)
    else:
        masks = _released(image_HW3) if released else _ours(name, image_HW3)
    masks(held_out_scene(78, size_hw=(64, 64)).rgb_HW3)
    _CLEAR_REFS.write_text("5")  # the peak so far, of the calibration, is forgotten
    before = time.process_time()
    found = masks(image_HW3)
    seconds = time.process_time() - before
    marks = [hashlib.sha256(counts.encode()).hexdigest()[:8] for counts in found]
    told = {"peer": peer, "cpu_s": round(seconds, 2), "masks": len(found), "peak_mib": _peak_mib()}
    return told | {"marks": marks}


def _peak_mib() -> int:
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def _released(image_HW3: Image_HW3) -> Masks:
    generator = mobile_sam.SamAutomaticMaskGenerator(_calibrated_mobile(image_HW3), output_mode="coco_rle")
    return partial(_run_lengths, generator)


def _run_lengths(generator: Any, image_HW3: Image_HW3) -> list[str]:
    return [each["segmentation"]["counts"] for each in generator.generate(image_HW3)]


def _released_sam_2(config: Sam2Config, image_HW3: Image_HW3) -> Masks:
    # Only in a process of its own: importing it takes Hydra for itself.
    from benchmarks.reference import sam2_released

    model = sam2_released.with_weights(calibrated_sam_2(config, image_HW3, seed=0))
    return partial(_run_lengths, sam2_released.generator(model, {}))


def _our_sam_2(config: Sam2Config, image_HW3: Image_HW3) -> Masks:
    return _generated(calibrated_sam_2(config, image_HW3, seed=0), Recipe(pred_iou_thresh=THRESHOLD))


def _ours(name: str, image_HW3: Image_HW3) -> Masks:
    config = MODELS[name]
    if isinstance(config, SamConfig):
        released = calibrated_official(config, image_HW3, seed=0)
    else:
        released = _calibrated_mobile(image_HW3)
    sam, state = Sam(config), released.state_dict()
    sam.load_state_dict({key: state[key] for key in sam.state_dict()})
    return _generated(sam, Recipe())


def _generated(sam: Sam, recipe: Recipe) -> Masks:
    generate = partial(generate_masks, segmenter=TorchSegmenter(sam, weights_sha256=""), recipe=recipe)
    return lambda image_HW3: [mask.counts for mask in generate([image_HW3])[0].masks]


def _calibrated_mobile(image_HW3: Image_HW3) -> Any:
    cast(Any, torch).manual_seed(0)
    released = build_mobile()
    calibrate(released, image_HW3)
    return released


def main(peers: list[str]) -> None:
    marks: dict[str, set[str]] = {}
    for peer in peers or PEERS:
        command = [sys.executable, "-c", "import sys; from benchmarks.small_models import one; one(sys.argv[1])", peer]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        marks[peer] = set(told.pop("marks"))
        ours = marks.get(peer.removesuffix(" released"), set())
        if peer.endswith(" released") and ours:
            told["same_masks"] = len(marks[peer] & ours)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def one(peer: str) -> None:
    sys.stdout.write(json.dumps(measure(peer)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
