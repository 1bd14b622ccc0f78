"""A benchmark's JSON as Markdown: `python -m benchmarks.table compare.json`. Reads JSON alone, of this schema.

Medians of the repetitions. What decides is CPU seconds on a CPU and wall seconds on a GPU; a ratio says how many times
more of them a peer takes.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.stage_table import stage_table

SCHEMA = 2
"""Of the JSON: 2 has stages and funnels in the peers' rows, and names the device."""
MEASURED = {
    "cpu": ("CPU s", "of it system", "x ours", "encode", "prompts", "rest", "peak MiB"),
    "cuda": ("wall s", "images/s", "CPU s", "x ours", "encode", "prompts", "rest", "peak MiB on the GPU"),
}
AGREED = ("masks", "matched", "IoU >= 0.9", "mean IoU", "least IoU", "same RLE", "score diff", "same order")
BASE = {"cpu": ("ours",), "cuda": ("ours_bf16", "ours")}
"""Which of ours the others are divided by in the first table, and which is traced: the first that ran."""
CLOCK = {"cpu": "CPU s", "cuda": "wall s"}


def markdown(result: dict[str, Any]) -> str:
    """Provenance, one line a case, then for each case the peers' table and where our time goes.

    raises  ValueError if the JSON is of another schema
    """
    if result.get("schema") != SCHEMA:
        raise ValueError(
            f"this JSON has schema {result.get('schema')}, not {SCHEMA}; read it with its own commit's table"
        )
    device = result["options"]["device"]
    lines = [" ".join(_provenance(result)), "", *_summary(result["cases"], device), ""]
    for case in result["cases"]:
        lines += [
            f"### {_title(case)}",
            "",
            *_case_table(case, device),
            "",
            *_remarks(case),
            *_stage_tables(case, device),
        ]
        if "trace" in case:
            lines += [f"Trace of {case['trace']['peer']} on this image: {case['trace']['file']}", ""]
    lines += [_clock_note(device) + " " + AGREEMENT_NOTE, ""]
    return "\n".join(lines)


AGREEMENT_NOTE = (
    "Agreement is with the released generator: matched means IoU >= 0.9999, the score difference is over pairs with "
    "IoU >= 0.9. Widened weights are those of tiny in another model's sizes, calibrated so that a realistic "
    "share of masks survives."
)


def _clock_note(device: str) -> str:
    if device == "cpu":
        return "CPU seconds are user + system of the peer's own process, median of the runs."
    return (
        "Wall seconds end when the GPU has nothing left to do, median of the runs after one that is not counted; one "
        "image at a time. Encode, prompts and rest are of one more run, in which the GPU is waited for at every stage. "
        "Peak memory is that of torch's tensors."
    )


def _provenance(result: dict[str, Any]) -> Iterator[str]:
    machine, versions, device = result["machine"], result["versions"], result["device"]
    changed = f" + {result['changed_files']} changed files" if result["changed_files"] else ""
    yield f"Commit {result['commit'][:12] or 'unknown'}{changed}, {result['date']}. {machine['cpu']},"
    yield f"{machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {result['options']['threads']}"
    yield f"thread(s), load {machine['load']} at the start."
    if device is not None:
        yield f"{device['name']}, {device['memory_bytes'] / 2**30:.0f} GiB, driver {device['driver']},"
        yield f"CUDA {device['cuda']}."
    yield ", ".join(f"{name} {value}" for name, value in versions.items() if value) + "."
    if device is not None and versions["torchvision"] is None:
        yield "torchvision is missing: the peers remove duplicates in Python on the host, which costs them time."
    for model, weights in result["weights"].items():
        yield f"Weights of {model} (sha256 {weights['sha256'][:12]}): {weights['note']}."


def _summary(cases: list[dict[str, Any]], device: str) -> Iterator[str]:
    """One row a case: our seconds, and how many times more each peer takes."""
    ran = {name for case in cases for name, row in case["peers"].items() if row["runs"]}
    base = next((name for name in BASE[device] if name in ran), "ours")
    names = list(dict.fromkeys(name for case in cases for name in case["peers"] if name != base))
    columns = ["case", f"{base}, {CLOCK[device]}", *(f"{name} / {base}" for name in names)]
    columns += [f"peak, released / {base}", "ours agrees"]
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for case in cases:
        peers = case["peers"]
        base_s = seconds(peers.get(base, {}), device)
        cells = [f"{case['model']} ({case['weights']}), {case['recipe']}, {case['width']} x {case['height']}"]
        cells += [_seconds(base_s, device) if base_s else ""]
        cells += [_times(seconds(peers.get(name, {}), device), base_s) for name in names]
        cells += [_times(_peak(peers.get("released", {}), device), _peak(peers.get(base, {}), device))]
        found = peers.get("ours", {}).get("agreement")
        cells += ["" if found is None else f"yes, {found['count']} masks" if found["agrees"] else "no"]
        yield "| " + " | ".join(cells) + " |"


def _times(one: float | None, other: float | None) -> str:
    return f"{one / other:.1f}x" if one and other else ""


def _seconds(value: float, device: str) -> str:
    return f"{value:.2f}" if device == "cpu" else f"{value:.4f}"


def _peak(row: dict[str, Any], device: str) -> float | None:
    key = "peak_bytes" if device == "cpu" else "device_peak_bytes"
    return max((run[key] for run in row.get("runs", [])), default=None)


def _title(case: dict[str, Any]) -> str:
    settings = case["settings"]
    thresholds = f"IoU > {settings['pred_iou_thresh']}, stability >= {settings['stability_score_thresh']}"
    return (
        f"{case['model']} ({case['weights']} weights), {case['recipe']}, {case['width']} x {case['height']}: "
        f"{case['crops']} crops, {case['prompts']} prompts, {thresholds}"
    )


def _case_table(case: dict[str, Any], device: str) -> Iterator[str]:
    columns = ("peer", *MEASURED[device], *AGREED, "remark")
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    ours_s = seconds(case["peers"].get("ours", {}), device)
    for row in case["peers"].values():
        yield "| " + " | ".join([*_measured(row, ours_s, device), *_agreed(row), _remark(row)]) + " |"


def seconds(row: dict[str, Any], device: str) -> float | None:
    """Median of a peer's runs, of what decides on that device; None if it has none."""
    runs = row.get("runs")
    if not runs:
        return None
    return statistics.median(run["user"] + run["system"] if device == "cpu" else run["wall"] for run in runs)


def _measured(row: dict[str, Any], ours_s: float | None, device: str) -> list[str]:
    median_s, peak = seconds(row, device), _peak(row, device)
    if median_s is None or peak is None:
        return [row["title"], *[""] * len(MEASURED[device])]
    cells = {
        CLOCK[device]: _seconds(median_s, device),
        "images/s": f"{1 / median_s:.2f}",
        "CPU s": _seconds(seconds(row, "cpu") or 0.0, "cpu"),
        "of it system": f"{statistics.median(run['system'] for run in row['runs']):.2f}",
        "x ours": f"{median_s / ours_s:.2f}" if ours_s else "",
        **{stage: _stage_seconds(row, stage, device) for stage in ("encode", "prompts", "rest")},
        MEASURED[device][-1]: f"{peak / 2**20:.0f}",
    }
    return [row["title"], *(cells[column] for column in MEASURED[device])]


def _stage_seconds(row: dict[str, Any], stage: str, device: str) -> str:
    """Of the runs where their stages were clocked, else of the one run for them."""
    found = [run["stages"][stage] for run in row["runs"] if "stages" in run]
    if not found and "stages" in row:
        known = row["stages"]
        found = [known[stage] if stage in known else sum(known.values()) - known["encode"] - known["prompts"]]
    return _seconds(statistics.median(found), device) if found else ""


def _agreed(row: dict[str, Any]) -> list[str]:
    if "agreement" not in row:
        return [str(row.get("masks", "")), *[""] * 7]
    agreement = row["agreement"]
    of = agreement["reference"]
    return [
        f"{agreement['count']} of {of}",
        f"{agreement['matched']} of {of}",
        f"{agreement['similar']} of {of}",
        f"{agreement['mean_iou']:.4f}",
        f"{agreement['least_iou']:.6f}",
        f"{agreement['identical']} of {of}",
        f"{agreement['score_difference']:.1e}",
        "yes" if agreement["same_order"] else "no",
    ]


def _remark(row: dict[str, Any]) -> str:
    remarks = [f"{reason}: {row[key]}" for key, reason in (("skipped", "skipped"), ("failed", "failed")) if key in row]
    if "agreement" in row and not row["agreement"]["agrees"]:
        remarks.append("disagrees")
    if row.get("once"):
        remarks.append("ran once (over the time budget)")
    elif row["runs"]:
        remarks.append(f"{len(row['runs'])} runs")
    if not row.get("repeatable", True):
        remarks.append("its own runs differ")
    return "; ".join(remarks).replace("|", "/")


def _remarks(case: dict[str, Any]) -> Iterator[str]:
    """What bf16 changes in ours."""
    found = case["peers"].get("ours_bf16", {}).get("beside_fp32")
    if found is not None:
        share = f" ({found['similar'] / found['reference']:.1%})" if found["reference"] else ""
        yield (
            f"Ours in bf16 beside ours in float32: {found['count']} masks for {found['reference']}; {found['similar']} "
            f"of {found['reference']}{share} have a partner with IoU >= 0.9, mean IoU {found['mean_iou']:.4f}, least "
            f"{found['least_iou']:.4f}; scores differ by up to {found['score_difference']:.1e}."
        )
        yield ""


def _stage_tables(case: dict[str, Any], device: str) -> Iterator[str]:
    for row in case["peers"].values():
        if "floors" in row:
            yield from stage_table(row, clock=CLOCK[device])


if __name__ == "__main__":
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text())))
