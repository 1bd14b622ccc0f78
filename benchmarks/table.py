"""A benchmark's JSON as Markdown: `python -m benchmarks.table compare.json`. Reads JSON alone, of this or an older run.

Medians of the repetitions; a ratio says how many times more CPU a peer takes than ours.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLUMNS = (
    "peer",
    "CPU s",
    "of it system",
    "x ours",
    "encode",
    "prompts",
    "rest",
    "peak MiB",
    "masks",
    "matched",
    "IoU >= 0.9",
    "mean IoU",
    "least IoU",
    "same RLE",
    "score diff",
    "same order",
    "remark",
)


def markdown(result: dict[str, Any]) -> str:
    """Provenance, one line a case, then for each case the peers' table and where our time goes."""
    lines = [" ".join(_provenance(result)), "", *_summary(result["cases"]), ""]
    for case in result["cases"]:
        lines += [f"### {_title(case)}", "", *_case_table(case), ""]
        if "stages" in case:
            lines += [f"Ours by stage, CPU s: {_stages(case['stages'])}. {_funnel(case['funnel'])}", ""]
    lines += [
        "CPU seconds are user + system of the peer's own process, median of the runs; agreement is with the released "
        "generator: matched means IoU >= 0.9999, the score difference is over matched masks. Widened weights "
        "are the bundled model's in another model's sizes, calibrated so that a realistic share of masks survives.",
        "",
    ]
    return "\n".join(lines)


def _provenance(result: dict[str, Any]) -> Iterator[str]:
    machine, versions = result["machine"], result["versions"]
    changed = f" + {result['changed_files']} changed files" if result["changed_files"] else ""
    yield f"Commit {result['commit'][:12] or 'unknown'}{changed}, {result['date']}. {machine['cpu']},"
    yield f"{machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {result['options']['threads']}"
    yield f"thread(s), load {machine['load']} at the start."
    yield ", ".join(f"{name} {value}" for name, value in versions.items() if value) + "."
    for model, weights in result["weights"].items():
        yield f"Weights of {model}: {weights['kind']}, sha256 {weights['sha256'][:12]}."


def _summary(cases: list[dict[str, Any]]) -> Iterator[str]:
    """One row a case: our seconds, and how many times more each peer takes."""
    names = list(dict.fromkeys(name for case in cases for name in case["peers"] if name != "ours"))
    yield (
        "| case | ours, CPU s | "
        + " | ".join(f"{name} / ours" for name in names)
        + " | peak, released / ours | agrees |"
    )
    yield "|---" * (len(names) + 4) + "|"
    for case in cases:
        peers = case["peers"]
        ours_s = cpu_seconds(peers.get("ours", {}))
        cells = [f"{case['model']} ({case['weights']}), {case['recipe']}, {case['width']} x {case['height']}"]
        cells += [f"{ours_s:.2f}" if ours_s else ""]
        cells += [_times(cpu_seconds(peers.get(name, {})), ours_s) for name in names]
        cells += [_times(_peak(peers.get("released", {})), _peak(peers.get("ours", {})))]
        found = peers.get("ours", {}).get("agreement")
        cells += ["" if found is None else f"yes, {found['count']} masks" if found["agrees"] else "no"]
        yield "| " + " | ".join(cells) + " |"


def _times(one: float | None, other: float | None) -> str:
    return f"{one / other:.1f}x" if one and other else ""


def _peak(row: dict[str, Any]) -> float | None:
    return max((run["peak_bytes"] for run in row.get("runs", [])), default=None)


def _title(case: dict[str, Any]) -> str:
    settings = case["settings"]
    thresholds = f"IoU > {settings['pred_iou_thresh']}, stability >= {settings['stability_score_thresh']}"
    return (
        f"{case['model']} ({case['weights']} weights), {case['recipe']}, {case['width']} x {case['height']}: "
        f"{case['crops']} crops, {case['prompts']} prompts, {thresholds}"
    )


def _case_table(case: dict[str, Any]) -> Iterator[str]:
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|---" * len(COLUMNS) + "|"
    ours_s = cpu_seconds(case["peers"].get("ours", {}))
    for row in case["peers"].values():
        yield "| " + " | ".join([*_measured(row, ours_s), *_agreed(row), _remark(row)]) + " |"


def cpu_seconds(row: dict[str, Any]) -> float | None:
    """Median user + system of a peer's runs; None if it has none."""
    runs = row.get("runs")
    return statistics.median(run["user"] + run["system"] for run in runs) if runs else None


def _measured(row: dict[str, Any], ours_s: float | None) -> list[str]:
    seconds = cpu_seconds(row)
    if seconds is None:
        return [row["title"], *[""] * 7]
    system = statistics.median(run["system"] for run in row["runs"])
    peak = max(run["peak_bytes"] for run in row["runs"]) / 2**20
    ratio = f"{seconds / ours_s:.2f}" if ours_s else ""
    stages = [_stage_seconds(row, stage) for stage in ("encode", "prompts", "rest")]
    return [row["title"], f"{seconds:.2f}", f"{system:.2f}", ratio, *stages, f"{peak:.0f}"]


def _stage_seconds(row: dict[str, Any], stage: str) -> str:
    seconds = [run["stages"][stage] for run in row["runs"] if stage in run.get("stages", {})]
    return f"{statistics.median(seconds):.2f}" if seconds else ""


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


def _stages(stages: dict[str, float]) -> str:
    total = sum(stages.values()) or 1.0
    return ", ".join(f"{name} {seconds:.2f} ({seconds / total:.0%})" for name, seconds in stages.items())


def _funnel(funnel: dict[str, int]) -> str:
    above = funnel["candidates"] - funnel["low_predicted_iou"]
    stable = above - funnel["low_stability"]
    return f"{funnel['candidates']} predicted masks, {above} above the IoU threshold, {stable} also stable."


if __name__ == "__main__":
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text())))
