"""Peers side by side: `python -m benchmarks.compare [--device cuda] [--models tiny ...]`, or `make bench ARGS='...'`.

Each peer runs in a process of its own, alive for the whole case; repetitions take turns, in an order that rotates. One
JSON (written anew after every run, so that an interrupted benchmark keeps what it has) and one Markdown table from it.
Legend: H W pixels.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import device
from benchmarks.bounds import floors, seen_shares
from benchmarks.cases import Case, Options, prompts_and_crops
from benchmarks.ceilings import Ceilings
from benchmarks.command_line import parse
from benchmarks.image_cost import image_work
from benchmarks.machine import provenance
from benchmarks.peer_masks import PeerMask
from benchmarks.peers import PEERS, Peer, Setup
from benchmarks.processes import PeerError, PeerProcess
from benchmarks.table import BASE, SCHEMA, markdown, seconds
from benchmarks.weights import Weights, find_weights
from model.config import CONFIGS
from pipeline.masks.agreement import agreement
from pipeline.settings import Recipe

REFERENCE = "released"
OURS = ("ours", "ours_bf16")
UNUSABLE_DEVICE = 2
"""Exit code."""


def compare(options: Options, *, folder: Path, peers: Mapping[str, Peer] = PEERS) -> Iterator[dict[str, Any]]:
    """Run every case; the whole result so far, as plain values for JSON, after every run of a peer.

    folder  where checkpoints are kept for the peers
    peers   what the names in `options.peers` mean
    """
    result: dict[str, Any] = {
        "benchmark": "compare",
        "schema": SCHEMA,
        **provenance(options.device),
        "options": asdict(options),
        "weights": {},
        "cases": [],
    }
    given = dict(options.weights)
    for model in options.models:
        weights = find_weights(model, given=given.get(model), folder=folder)
        result["weights"][model] = {"kind": weights.kind, "sha256": weights.sha256, "note": weights.note}
        for case in replace(options, models=(model,)).cases():
            row: dict[str, Any] = {}
            result["cases"].append(row)
            for row_so_far in run_case(case, options, weights, peers):
                row.update(row_so_far)
                yield result
            options = replace(options, trace=None)
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
    setup = Setup(case.model, str(weights.path), options.fast_checkout, options.device)
    with ExitStack() as stack:
        image = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "image.npy"
        np.save(image, image_HW3)
        processes = _start(stack, row["peers"], setup, options, peers)
        running = _Running(case, options, recipe, image, row["peers"], processes)
        for repetition in range(options.repetitions):
            for name in _rotated(options.peers, repetition):
                if name in processes and not running.over_budget(name):
                    running.run_once(name)
                    _agree(row["peers"], (case.height, case.width))
                    yield row
        for name in [name for name in processes if name in OURS or options.device == "cuda"]:
            with suppress(PeerError):  # it ran before; a row without stages is still one
                running.stages(name)
        traced = [name for name in BASE[options.device] if name in processes]
        if options.trace and traced:
            row["trace"] = {"peer": traced[0], "file": running.trace(traced[0], Path(options.trace))}
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


@dataclass(frozen=True)
class _Running:
    """A case under way: what is asked, the peers' rows, and the processes of those that are alive."""

    case: Case
    options: Options
    recipe: Recipe
    image: Path
    rows: dict[str, Any]
    processes: dict[str, PeerProcess]

    def run_once(self, name: str) -> None:
        """One run of a peer into its row, after one that compiles and loads what the first run would."""
        row, process = self.rows[name], self.processes[name]
        try:
            if not row["runs"]:
                process.run(self.image, self._warm_up())
            answer = process.run(self.image, self.recipe)
        except PeerError as error:
            row["failed"] = str(error)
            self.processes.pop(name).close()
            return
        masks = answer.pop("masks")
        row["runs"].append(answer)
        row["repeatable"] = row.setdefault("masks", masks) == masks

    def _warm_up(self) -> Recipe:
        """A few points on a CPU; on a GPU the whole, because kernels are chosen and compiled for its shapes."""
        if self.options.device != "cpu":
            return self.recipe
        return replace(self.recipe, points_per_side=4, crop_n_layers=0, pred_iou_thresh=0.0, stability_score_thresh=0.0)

    def over_budget(self, name: str) -> bool:
        """The repetitions would take too long, by the first run."""
        row = self.rows[name]
        if not row["runs"]:
            return False
        first_s = seconds({"runs": row["runs"][:1]}, self.options.device) or 0.0
        row["once"] = first_s * self.options.repetitions > self.options.budget_s
        return row["once"]

    def stages(self, name: str) -> None:
        """A peer's stages into its row; those of ours with the device's ceilings and each stage's floor.

        raises  PeerError if the peer fails
        """
        seen = self.processes[name].stages(self.image, self.recipe)
        if name in OURS:
            case, ceilings = self.case, self.processes[name].ceilings()["ceilings"]
            shares = seen_shares(seen["funnel"])
            work = image_work(CONFIGS[case.model], self.recipe, (case.height, case.width), shares)
            least = floors(work, Ceilings(**ceilings), encoder=PEERS[name].precision)
            seen |= {"ceilings": ceilings, "floors": {stage: asdict(floor) for stage, floor in least.items()}}
        self.rows[name].update(seen)

    def trace(self, name: str, file: Path) -> str:
        """Where a peer's trace is, or why there is none."""
        try:
            return self.processes[name].trace(self.image, self.recipe, file)["trace"]
        except PeerError as error:
            return f"none, {error}"


def _rotated(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def _agree(rows: dict[str, Any], image_hw: tuple[int, int]) -> None:
    """Every peer's agreement with the released generator, and our bf16's with our float32, as far as both have run."""
    pairs = [(REFERENCE, name, "agreement") for name in rows] + [(*OURS, "beside_fp32")]
    for reference, name, key in pairs:
        both = [rows.get(one, {}).get("masks") for one in (reference, name)]
        if None not in both and key not in rows[name]:
            first, second = ([PeerMask(**mask) for mask in masks] for masks in both)
            found = agreement(first, second, image_hw=image_hw)
            rows[name][key] = asdict(found) | {"agrees": found.agrees}


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


def write(result: dict[str, Any], folder: Path) -> None:
    """compare.json and compare.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = without_masks(result)
    (folder / "compare.json").write_text(json.dumps(plain, indent=1) + "\n")
    (folder / "compare.md").write_text(markdown(plain))


def main(arguments: Sequence[str]) -> int:
    options, folder = parse(arguments)
    try:
        device.check(options.device)
    except device.DeviceError as error:
        sys.stderr.write(f"{error}.\n")
        return UNUSABLE_DEVICE
    result: dict[str, Any] = {}
    for result in compare(options, folder=folder / "weights"):
        write(result, folder)
        case = result["cases"][-1]
        sys.stderr.write(f"{case['model']} {case['recipe']} {case['width']}x{case['height']}: {_progress(case)}\n")
    sys.stdout.write(markdown(without_masks(result)))
    return 0


def _progress(case: dict[str, Any]) -> str:
    return ", ".join(f"{name} {len(row['runs'])}" for name, row in case["peers"].items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
