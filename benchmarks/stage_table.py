"""Where the time of one of ours goes, and how near each stage is to what the device can do: Markdown from its JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def stage_table(row: dict[str, Any], *, clock: str) -> Iterator[str]:
    """The stages of a peer's row that has `floors`.

    A stage's floor is the time of its products at the ceiling of their precision, or of its bytes where it has no
    products. The last column is the time of its bytes if every operator read and wrote the device's memory: a stage
    near it wants fused operators, one far above both wants fewer launches or waits.
    """
    stages, whole = row["stages"], sum(row["stages"].values()) or 1.0
    columns = (f"{clock.removesuffix(' s')} ms", "share", "GFLOP", "floor, ms", "floor / time", "operators' bytes, ms")
    yield f"| stages of {row['title']} | {' | '.join(columns)} |"
    yield "|---" * (1 + len(columns)) + "|"
    for name, taken_s in stages.items():
        cells = [name, f"{taken_s * 1e3:,.2f}", f"{taken_s / whole:.0%}"]
        yield "| " + " | ".join([*cells, *_floor(row["floors"].get(name), taken_s)]) + " |"
    yield ""
    yield f"{_funnel(row['funnel'])} {_ceilings(row['ceilings'])}"
    yield ""


def _floor(floor: dict[str, float] | None, taken_s: float) -> list[str]:
    if floor is None:
        return [""] * 4
    flops = f"{floor['flops'] / 1e9:,.1f}" if floor["flops"] else ""
    share = f"{floor['seconds'] / taken_s:.1%}" if taken_s else ""
    return [flops, f"{floor['seconds'] * 1e3:,.2f}", share, f"{floor['operator_seconds'] * 1e3:,.2f}"]


def _funnel(funnel: dict[str, int]) -> str:
    above = funnel["candidates"] - funnel["low_predicted_iou"]
    stable = above - funnel["low_stability"]
    return f"{funnel['candidates']} predicted masks, {above} above the IoU threshold, {stable} also stable."


def _ceilings(ceilings: dict[str, Any]) -> str:
    products = ", ".join(f"{value / 1e12:,.2f} TFLOP/s in {name}" for name, value in ceilings["flops"].items())
    return f"Ceilings measured in the same process: {products}, {ceilings['bytes'] / 1e9:,.1f} GB/s copying."
