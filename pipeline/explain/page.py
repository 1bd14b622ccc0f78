"""The page of an explanation: one HTML file that needs nothing but itself.

Owns what a reader sees of each step: what it does, by which setting, how many candidates it took, and a few of them.
Legend: N values, K bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.explain.pictures import layers, tile
from pipeline.explain.records import Explanation, Scores, Step
from pipeline.look.drawing import Picture, drawn_over, scaled
from pipeline.look.html import jpeg_uri, render
from pipeline.texts import counted, printable

BINS, CHART_WH = 60, (600, 140)
OTHER_THRESHOLDS = (-0.1, -0.05, 0.05, 0.1)
"""What else a threshold could be, beside what it is."""


@dataclass(frozen=True, slots=True)
class Bar:
    x: str
    width: str
    y: str
    height: str
    stays: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """A histogram, in pixels of CHART_WH.

    cut     where the threshold is; its label starts, has its middle or ends there by `anchor`
    others  (threshold, how many would stay), with the present one among them
    """

    said: str
    bars: tuple[Bar, ...]
    cut: str
    anchor: str
    low: str
    high: str
    threshold: str
    others: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True)
class Shown:
    src: str
    said: str


@dataclass(frozen=True, slots=True)
class Section:
    """A step on the page. `share` is of all candidates, of 100."""

    step: Step
    removed: str
    left: str
    share: str
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
        sections=[_section(step, image_HW3, candidates) for step in explanation.steps],
        chart_wh=CHART_WH,
    )


def _layer_said(explanation: Explanation, layer: int) -> str:
    crops = [each for each in explanation.crops if each.crop.layer == layer]
    points = sum(len(each.points) for each in crops)
    what = "the full image" if layer == 0 else f"{len(crops)} overlapping crops"
    return f"Layer {layer}: {what}, {points:,} points"


def _section(step: Step, image_HW3: Picture, candidates: int) -> Section:
    return Section(
        step=step,
        removed=f"{step.removed:,}",
        left=f"{step.left:,}",
        share=f"{100 * step.left / candidates:.2f}",
        chart=_chart(step.scores) if step.scores is not None and len(step.scores.values_N) else None,
        groups=tuple(
            (heading, tuple(Shown(jpeg_uri(tile(image_HW3, example)), example.said) for example in examples))
            for heading, examples in step.groups
        ),
    )


def _chart(scores: Scores) -> Chart:
    values_N, threshold = scores.values_N, scores.threshold
    low = min(0.0, float(values_N.min()), threshold) if scores.above_stays else threshold
    high = max(1.0, float(values_N.max()), threshold)
    # An edge lies on the threshold, so that no bar is on both sides of it.
    below = round(BINS * (threshold - low) / (high - low)) if high > low else 0
    edges = np.concatenate(
        [np.linspace(low, threshold, below + 1)[:-1], np.linspace(threshold, high, BINS - below + 1)]
    )
    counts_K, _ = np.histogram(values_N, edges)
    width, height = CHART_WH
    scale = width / max(high - low, 1e-9)
    most = max(1, int(counts_K.max()))
    bars = tuple(
        Bar(
            x=f"{(left - low) * scale:.1f}",
            width=f"{max((right - left) * scale - 1, 0.5):.1f}",
            y=f"{height - height * count / most:.1f}",
            height=f"{height * count / most:.1f}",
            stays=bool(scores.above_stays and left >= threshold),
        )
        for (left, right), count in zip(pairwise(edges.tolist()), counts_K.tolist(), strict=True)
        if count
    )
    said = f"{scores.name} of {counted(len(values_N), 'candidate')}; the tallest bar has {most:,}"
    others = tuple(_others(scores)) if scores.above_stays else ()
    cut = (threshold - low) * scale
    anchor = "start" if cut < width / 4 else "end" if cut > width * 3 / 4 else "middle"
    return Chart(said, bars, f"{cut:.1f}", anchor, f"{low:.2f}", f"{high:.2f}", f"{threshold:g}", others)


def _others(scores: Scores) -> Iterator[tuple[str, str, bool]]:
    for step in sorted((*OTHER_THRESHOLDS, 0.0)):
        other = scores.threshold + step
        yield f"{other:.2f}", f"{scores.above(other):,}", step == 0.0
