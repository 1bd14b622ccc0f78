"""How our CPU time grows: `python -m benchmarks.curves [--model tiny ...]`.

One thing is changed at a time, from the `sam` recipe on one image: points, crops, pixels, surviving masks. Our process
alone, each point the median of the repetitions, by stage. One JSON, and the table of docs/cost.md from it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case, Options, prompts_and_crops
from benchmarks.machine import provenance
from benchmarks.peers import PEERS, Setup
from benchmarks.processes import PeerProcess
from benchmarks.stages import STAGES
from benchmarks.weights import find_weights
from model.config import CONFIGS
from pipeline.settings import Recipe

SIZE_WH = (1024, 683)
SIZES_WH = ((512, 341), SIZE_WH, (1500, 1000), (2250, 1500), (4500, 3000))
POINTS = (8, 16, 24, 32)
LAYERS = (0, 1, 2)
THRESHOLDS = ((1.0, 1.0), (Recipe.pred_iou_thresh, Recipe.stability_score_thresh), (0.7, 0.8), (0.5, 0.5), (0.0, 0.0))
"""(pred_iou_thresh, stability_score_thresh)"""


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: what is varied, on which image size, with which recipe."""

    curve: str
    label: str
    size_wh: tuple[int, int]
    recipe: Recipe


def points(base: Recipe) -> Iterator[Point]:
    """The four curves, from a recipe with one crop."""
    for count in POINTS:
        yield Point("points", f"{count} x {count}", SIZE_WH, replace(base, points_per_side=count))
    for layers in LAYERS:
        recipe = replace(base, crop_n_layers=layers, crop_n_points_downscale_factor=2)
        yield Point("crops", f"{layers} layers", SIZE_WH, recipe)
    for width, height in SIZES_WH:
        yield Point("pixels", f"{width} x {height}", (width, height), base)
    for iou, stability in THRESHOLDS:
        recipe = replace(base, pred_iou_thresh=iou, stability_score_thresh=stability)
        yield Point("masks", f"IoU > {iou}, stability >= {stability}", SIZE_WH, recipe)


def measure(model: str, options: Options, *, folder: Path) -> Iterator[dict[str, Any]]:
    """The result so far, as plain values for JSON, after every point: its stages and its funnel.

    folder  where the checkpoint is kept
    """
    weights = find_weights(model, given=dict(options.weights).get(model), folder=folder)
    result: dict[str, Any] = {
        "benchmark": "curves",
        **provenance(),
        "options": asdict(options),
        "weights": {model: {"kind": weights.kind, "sha256": weights.sha256}},
        "points": [],
    }
    setup = Setup(model, str(weights.path))
    with (
        tempfile.TemporaryDirectory() as images,
        PeerProcess(PEERS["ours"], setup, threads=options.threads, limit_wall_s=options.limit_wall_s) as ours,
    ):
        for point in points(options.recipe("sam")):
            width, height = point.size_wh
            image = Path(images) / f"{width}x{height}.npy"
            np.save(image, options.pixels(Case(model, "sam", width, height)))
            if not result["points"]:
                ours.run(image, replace(point.recipe, pred_iou_thresh=0.0, stability_score_thresh=0.0))
            answers = [ours.stages(image, point.recipe) for _ in range(options.repetitions)]
            prompts, crops = prompts_and_crops(point.recipe, (height, width))
            result["points"].append(
                {
                    "curve": point.curve,
                    "label": point.label,
                    "prompts": prompts,
                    "crops": crops,
                    "megapixels": width * height / 1e6,
                    "funnel": answers[0]["funnel"],
                    "stages": {
                        stage: statistics.median(answer["stages"][stage] for answer in answers) for stage in STAGES
                    },
                }
            )
            yield result


def markdown(result: dict[str, Any]) -> str:
    """The points as one table, in CPU seconds."""
    [(model, weights)] = result["weights"].items()
    commit = result["commit"][:12] + (" with changes" if result["changed_files"] else "")
    lines = [
        f"Measured on commit {commit} ({result['date'][:10]}): {model}, {weights['kind']} weights, "
        f"{result['options']['threads']} thread(s) of {result['machine']['cpu']}, median of "
        f"{result['options']['repetitions']}.",
        "",
        "| varied | value | crops | prompts | megapixels | above IoU | kept | " + " | ".join(STAGES) + " | CPU s |",
        "|---" * (8 + len(STAGES)) + "|",
    ]
    for point in result["points"]:
        funnel, stages = point["funnel"], point["stages"]
        cells = [point["curve"], point["label"], point["crops"], point["prompts"], f"{point['megapixels']:.2f}"]
        cells += [funnel["candidates"] - funnel["low_predicted_iou"], funnel["kept"]]
        cells += [f"{stages[stage]:.2f}" for stage in STAGES] + [f"{sum(stages.values()):.2f}"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--model", choices=list(CONFIGS), default="tiny")
    parser.add_argument("--weights", metavar="PATH", help="checkpoint instead of the bundled weights or those widened")
    parser.add_argument("--repetitions", type=int, default=default.repetitions)
    parser.add_argument("--threads", type=int, default=default.threads)
    parser.add_argument("--scene", type=int, default=default.scene)
    parser.add_argument("--pred-iou-thresh", type=float, help="of the first three curves, instead of the recipe's")
    parser.add_argument("--stability-score-thresh", type=float, help="of the first three curves")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for curves.json and curves.md")
    chosen = parser.parse_args(arguments)
    options = Options(
        repetitions=chosen.repetitions,
        threads=chosen.threads,
        scene=chosen.scene,
        pred_iou_thresh=chosen.pred_iou_thresh,
        stability_score_thresh=chosen.stability_score_thresh,
        weights=((chosen.model, chosen.weights),) if chosen.weights else (),
    )
    result: dict[str, Any] = {}
    for result in measure(chosen.model, options, folder=chosen.out / "weights"):
        (chosen.out / "curves.json").write_text(json.dumps(result, indent=1) + "\n")
        (chosen.out / "curves.md").write_text(markdown(result))
        sys.stderr.write(f"{result['points'][-1]['curve']}: {result['points'][-1]['label']}\n")
    sys.stdout.write(markdown(result))


if __name__ == "__main__":
    main(sys.argv[1:])
