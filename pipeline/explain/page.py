"""The page of an explanation: one HTML file that needs nothing but itself.

Owns what a reader sees of each step: what it does, by which setting, how many candidates it took, and a few of them.
Legend: N values, K bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.explain.pictures import layers, tile
from pipeline.explain.records import Explanation, Scores, Step
from pipeline.look.drawing import Picture, drawn_over, scaled
from pipeline.look.html import jpeg_uri, render
from pipeline.look.plots import WIDE, Mark, Plot, cut_steps, lying, plot
from pipeline.texts import counted, printable

BINS = 60
OTHER_THRESHOLDS = (-0.1, -0.05, 0.05, 0.1)
"""What else a threshold could be, beside what it is."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A histogram of the values that a threshold decides by.

    others  (threshold, how many would stay), with the present one among them
    """

    said: str
    drawn: Plot
    others: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True)
class Shown:
    src: str
    said: str


@dataclass(frozen=True, slots=True)
class Section:
    """A step on the page."""

    step: Step
    removed: str
    left: str
    chart: Chart | None
    groups: tuple[tuple[str, tuple[Shown, ...]], ...]


def page(explanation: Explanation, image_HW3: Picture, *, name: str, model: str) -> str:
    """The same image, weights and recipe give the same page."""
    hw = image_HW3.shape[0], image_HW3.shape[1]
    result, candidates = explanation.result, max(1, explanation.result.funnel.candidates)
    return render(
        "pipeline.explain",
        "explain",
        image_name=printable(name),
        model=printable(model),
        size=f"{hw[1]} x {hw[0]}",
        image=jpeg_uri(scaled(image_HW3)),
        final=jpeg_uri(drawn_over(scaled(image_HW3), result.masks, hw)),
        masks=counted(len(result.masks), "mask"),
        candidates=f"{result.funnel.candidates:,}",
        settings=explanation.settings,
        layers=[
            Shown(jpeg_uri(picture), _layer_said(explanation, layer))
            for layer, picture in layers(image_HW3, explanation.crops)
        ],
        sections=[_section(step, image_HW3) for step in explanation.steps],
        funnel=_funnel(explanation.steps, candidates),
    )


def _layer_said(explanation: Explanation, layer: int) -> str:
    crops = [each for each in explanation.crops if each.crop.layer == layer]
    points = sum(len(each.points) for each in crops)
    what = "the full image" if layer == 0 else f"{len(crops)} overlapping crops"
    return f"Layer {layer}: {what}, {points:,} points"


def _section(step: Step, image_HW3: Picture) -> Section:
    return Section(
        step=step,
        removed=f"{step.removed:,}",
        left=f"{step.left:,}",
        chart=_chart(step.scores) if step.scores is not None and len(step.scores.values_N) else None,
        groups=tuple(
            (heading, tuple(Shown(jpeg_uri(tile(image_HW3, example)), example.said) for example in examples))
            for heading, examples in step.groups
        ),
    )


def _funnel(steps: Sequence[Step], candidates: int) -> Plot:
    labels, left = ["Crops and points", *(step.title for step in steps)], [candidates, *(step.left for step in steps)]
    lost = [0, *(step.removed for step in steps)]
    texts = [f"{candidates:,}", *(f"-{step.removed:,}" if step.removed else "0" for step in steps)]
    return plot(lying(labels, left, lost, texts), WIDE)


def _chart(scores: Scores) -> Chart:
    edges, counts = _binned(scores)
    said = f"{scores.name} of {counted(len(scores.values_N), 'candidate')}, threshold {scores.threshold:g}"
    mark = Mark(scores.threshold, f"threshold {scores.threshold:g}")
    drawn = plot(cut_steps(edges, counts, mark, x=scores.name, above_stays=scores.above_stays), WIDE)
    return Chart(said, drawn, tuple(_others(scores)) if scores.above_stays else ())


def _binned(scores: Scores) -> tuple[list[float], list[int]]:
    """Edges and counts. An edge lies on the threshold, so that no bar is on both sides of it."""
    values_N, threshold = scores.values_N, scores.threshold
    low = min(0.0, float(values_N.min()), threshold) if scores.above_stays else threshold
    high = max(1.0, float(values_N.max()), threshold)
    below = round(BINS * (threshold - low) / (high - low)) if high > low else 0
    edges = np.concatenate(
        [np.linspace(low, threshold, below + 1)[:-1], np.linspace(threshold, high, BINS - below + 1)]
    )
    counts_K, _ = np.histogram(values_N, edges)
    return edges.tolist(), counts_K.tolist()


def _others(scores: Scores) -> Iterator[tuple[str, str, bool]]:
    for step in sorted((*OTHER_THRESHOLDS, 0.0)):
        other = scores.threshold + step
        yield f"{other:.2f}", f"{scores.above(other):,}", step == 0.0
