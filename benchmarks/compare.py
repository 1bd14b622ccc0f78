"""Peers side by side: `python -m benchmarks.compare [--models tiny ...]`, or `make bench ARGS='...'`.

Each peer runs in a process of its own, alive for the whole case; repetitions take turns, in an order that rotates. One
JSON (written anew after every run, so that an interrupted benchmark keeps what it has) and one Markdown table from it.
Legend: H W pixels.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.agreement import PeerMask, agreement
from benchmarks.cases import RECIPE_NAMES, Case, Options, prompts_and_crops
from benchmarks.machine import provenance
from benchmarks.peers import PEERS, Peer, Setup
from benchmarks.processes import PeerError, PeerProcess
from benchmarks.table import markdown
from benchmarks.weights import Weights, find_weights
from model.config import CONFIGS
from pipeline.settings import Recipe

SCHEMA = 1
REFERENCE = "released"
OURS = "ours"


def compare(options: Options, *, folder: Path, peers: Mapping[str, Peer] = PEERS) -> Iterator[dict[str, Any]]:
    """Run every case; the whole result so far, as plain values for JSON, after every run of a peer.

    folder  where checkpoints are kept for the peers
    peers   what the names in `options.peers` mean
    """
    result: dict[str, Any] = {
        "benchmark": "compare",
        "schema": SCHEMA,
        **provenance(),
        "options": asdict(options),
        "weights": {},
        "cases": [],
    }
    given = dict(options.weights)
    for model in options.models:
        weights = find_weights(model, given=given.get(model), folder=folder)
        result["weights"][model] = {"kind": weights.kind, "sha256": weights.sha256}
        for case in replace(options, models=(model,)).cases():
            row: dict[str, Any] = {}
            result["cases"].append(row)
            for row_so_far in run_case(case, options, weights, peers):
                row.update(row_so_far)
                yield result
    yield result


def run_case(case: Case, options: Options, weights: Weights, peers: Mapping[str, Peer]) -> Iterator[dict[str, Any]]:
    """The case's row after every run of a peer."""
    recipe, image_HW3 = options.recipe(case.recipe), options.pixels(case)
    prompts, crops = prompts_and_crops(recipe, (case.height, case.width))
    row: dict[str, Any] = {
        **asdict(case),
        "weights": weights.kind,
        "prompts": prompts,
        "crops": crops,
        "settings": asdict(recipe),
        "peers": {name: {"title": peers[name].title, "runs": []} for name in options.peers},
    }
    setup = Setup(case.model, str(weights.path), options.fast_checkout)
    with ExitStack() as stack:
        image = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "image.npy"
        np.save(image, image_HW3)
        processes = _start(stack, row["peers"], setup, options, peers)
        for repetition in range(options.repetitions):
            for name in _rotated(options.peers, repetition):
                if name in processes and not _over_budget(row["peers"][name], options):
                    _run_once(name, processes, row["peers"], image, recipe)
                    _agree(row["peers"], (case.height, case.width))
                    yield row
        if OURS in processes:
            with suppress(PeerError):  # it ran before; a row without stages is still one
                row.update(processes[OURS].run(image, recipe, stages=True))
    yield row


def _start(
    stack: ExitStack, rows: dict[str, Any], setup: Setup, options: Options, peers: Mapping[str, Peer]
) -> dict[str, PeerProcess]:
    """A process for each peer that can be built; the others' rows say why not."""
    processes: dict[str, PeerProcess] = {}
    for name, row in rows.items():
        try:
            process = PeerProcess(peers[name], setup, threads=options.threads, limit_wall_s=options.limit_wall_s)
        except PeerError as error:
            row["skipped"] = str(error)
            continue
        processes[name] = stack.enter_context(process)
    return processes


def _run_once(name: str, processes: dict[str, PeerProcess], rows: dict[str, Any], image: Path, recipe: Recipe) -> None:
    """One run of a peer into its row, after one of a few points that compiles and loads what the first run would."""
    row = rows[name]
    try:
        if not row["runs"]:
            processes[name].run(image, _warm_up(recipe))
        answer = processes[name].run(image, recipe)
    except PeerError as error:
        row["failed"] = str(error)
        processes.pop(name).close()
        return
    masks = answer.pop("masks")
    row["runs"].append(answer)
    row["repeatable"] = row.setdefault("masks", masks) == masks


def _warm_up(recipe: Recipe) -> Recipe:
    return replace(recipe, points_per_side=4, crop_n_layers=0, pred_iou_thresh=0.0, stability_score_thresh=0.0)


def _over_budget(row: dict[str, Any], options: Options) -> bool:
    """The repetitions would take too long, by the first run."""
    if not row["runs"]:
        return False
    first_s = row["runs"][0]["user"] + row["runs"][0]["system"]
    row["once"] = first_s * options.repetitions > options.budget_s
    return row["once"]


def _rotated(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def _agree(rows: dict[str, Any], image_hw: tuple[int, int]) -> None:
    """Every peer's agreement with the released generator, as far as both have run."""
    if "masks" not in rows.get(REFERENCE, {}):
        return
    reference = [PeerMask(**mask) for mask in rows[REFERENCE]["masks"]]
    for row in rows.values():
        if "masks" in row and "agreement" not in row:
            found = agreement(reference, [PeerMask(**mask) for mask in row["masks"]], image_hw=image_hw)
            row["agreement"] = asdict(found) | {"agrees": found.agrees}


def without_masks(result: dict[str, Any]) -> dict[str, Any]:
    """The result as it is written: masks are counted, not kept."""
    cases = [
        case
        | {
            "peers": {
                name: {key: len(value) if key == "masks" else value for key, value in row.items()}
                for name, row in case["peers"].items()
            }
        }
        for case in result["cases"]
        if case
    ]
    return result | {"cases": cases}


def parse(arguments: Sequence[str]) -> tuple[Options, Path]:
    """Options and the folder for the results from a command line."""
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(CONFIGS), default=default.models)
    parser.add_argument("--recipes", nargs="+", choices=RECIPE_NAMES, default=default.recipes)
    parser.add_argument("--sizes", nargs="+", metavar="WxH", default=[f"{w}x{h}" for w, h in default.sizes_wh])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=default.peers)
    parser.add_argument("--repetitions", type=int, default=default.repetitions)
    parser.add_argument("--budget-s", type=float, default=default.budget_s, help="CPU seconds of a peer in a case")
    parser.add_argument("--limit-wall-s", type=float, default=default.limit_wall_s, help="wall seconds of one run")
    parser.add_argument("--threads", type=int, default=default.threads)
    parser.add_argument("--image", help="image file instead of a drawn scene")
    parser.add_argument("--scene", type=int, default=default.scene, help="number of the drawn scene")
    parser.add_argument("--pred-iou-thresh", type=float, help="for all peers instead of the recipe's")
    parser.add_argument("--stability-score-thresh", type=float, help="for all peers instead of the recipe's")
    parser.add_argument("--points-per-side", type=int, help="for all peers instead of the recipe's")
    parser.add_argument("--weights", nargs="*", metavar="MODEL=PATH", default=[])
    parser.add_argument("--fast-checkout", help="folder of a segment-anything-fast checkout")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for compare.json and compare.md")
    chosen = vars(parser.parse_args(arguments))
    sizes = [tuple(int(side) for side in size.split("x")) for size in chosen.pop("sizes")]
    chosen["weights"] = tuple(tuple(pair.split("=", 1)) for pair in chosen["weights"])
    names = {field.name for field in fields(Options)} - {"sizes_wh"}
    values: dict[str, Any] = {
        name: tuple(cast("list[str]", value)) if isinstance(value, list) else value
        for name, value in chosen.items()
        if name in names
    }
    return Options(**values, sizes_wh=tuple((w, h) for w, h in sizes)), chosen["out"]


def write(result: dict[str, Any], folder: Path) -> None:
    """compare.json and compare.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = without_masks(result)
    (folder / "compare.json").write_text(json.dumps(plain, indent=1) + "\n")
    (folder / "compare.md").write_text(markdown(plain))


def main() -> None:
    options, folder = parse(sys.argv[1:])
    result: dict[str, Any] = {}
    for result in compare(options, folder=folder / "weights"):
        write(result, folder)
        case = result["cases"][-1]
        sys.stderr.write(f"{case['model']} {case['recipe']} {case['width']}x{case['height']}: {_progress(case)}\n")
    sys.stdout.write(markdown(without_masks(result)))


def _progress(case: dict[str, Any]) -> str:
    return ", ".join(f"{name} {len(row['runs'])}" for name, row in case["peers"].items())


if __name__ == "__main__":
    main()
