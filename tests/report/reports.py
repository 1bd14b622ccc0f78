"""Reports made by hand: with everything in it, with nothing to draw, and with nothing at all."""

from __future__ import annotations

from dataclasses import replace

from pipeline.records import Funnel
from pipeline.report.records import (
    Bin,
    CentreMap,
    Concavity,
    Failure,
    Group,
    Grouping,
    Histogram,
    Overlap,
    Report,
    Scope,
)

HOSTILE = "<img src=x onerror=alert(1)>.jpg"


def histogram(counts: list[int], *, low: float = 0.0, high: float = 1.0, below: int = 0, above: int = 0) -> Histogram:
    edges = tuple(low + (high - low) * number / len(counts) for number in range(len(counts) + 1))
    return Histogram(edges, tuple(counts), below, above)


def full_report(**changes: object) -> Report:
    """Of a finished run; every part of it is there."""
    report = Report(
        out="/data/out",
        scope=Scope(8, 2, 2, 2, 2, 7, 502, 0),
        statuses={"ok": 7, "unreadable": 1},
        masks=502,
        failures=(Failure("unreadable", "the file is empty", 1, ("broken.png",)),),
        provenance={"model": "tiny", "weights sha256": "ab" * 32, "recipe": "sa1b"},
        funnel=Funnel(73728, 8053, 652, 42069, 22192, 190, 0, 70, 0, 502),
        layers={0: 300, 1: 150, 2: 52},
        outputs={0: 100, 1: 200, 2: 202},
        predicted_iou=histogram([0, 10, 40, 90, 140, 150, 72], low=0.4, high=1.1, above=2),
        stability=histogram([12, 40, 90, 160, 200], low=0.5),
        masks_per_image=(
            Bin("10 or fewer", 0),
            Bin("11-50", 3),
            Bin("51-100", 3),
            Bin("101-200", 1),
            Bin("above 200", 0),
        ),
        relative_size=histogram([180, 140, 80, 50, 30, 10, 6, 4, 1, 1]),
        centres=CentreMap(tuple(tuple(9 - abs(x - 8) + 8 - abs(y - 8) for x in range(16)) for y in range(16))),
        concavity=Concavity(histogram([120, 80, 40, 20, 10, 0, 0, 0, 0, 0]), (0.0, 0.5, 1.0), (200, 70)),
        overlap=Overlap(
            images=7,
            coverage=histogram([0, 0, 0, 0, 1, 1, 2, 2, 1, 0]),
            mean_coverage=0.68,
            depth={"1": 0.4, "2": 0.3, "3": 0.2, "4 or more": 0.1},
            duplicate_iou=0.9,
            near_duplicates=4,
            images_with_near_duplicates=2,
        ),
    )
    return replace(report, **changes)  # type: ignore[arg-type]


def bare_report(**changes: object) -> Report:
    """The same with nothing to draw, which takes most of the time of a page."""
    bare: dict[str, object] = {
        "funnel": None,
        "layers": {},
        "outputs": {},
        "predicted_iou": histogram([0, 0]),
        "stability": histogram([0, 0]),
        "masks_per_image": (),
        "relative_size": histogram([0, 0]),
        "centres": CentreMap(((0, 0), (0, 0))),
        "concavity": Concavity(histogram([0]), (0.0, 1.0), (0,)),
        "overlap": Overlap(0, histogram([0]), 0.0, {}, 0.9, 0, 0),
    }
    return full_report(**(bare | changes))


def empty_report() -> Report:
    """Of an unfinished run whose images all failed so far."""
    return bare_report(scope=Scope(8, 2, 1, 1, 1, 0, 0, 0), statuses={"unreadable": 4}, masks=0, provenance={})


def grouping(column: str = "country", groups: int = 3) -> Grouping:
    made = tuple(
        Group(f"group {number}", 40 - number, 1000 + number, 25.0 + number, (20.0 + number, 31.0 + number))
        for number in range(groups)
    )
    return Grouping(column, made, unmatched_rows=2, ungrouped_images=1, level=0.95)
