"""The few kinds of plot that the pages have, each drawn for a light and for a dark page, as SVG.

Owns the looks. Knows nothing of what is plotted. matplotlib takes some of its settings from global ones: they are set
for the time of a drawing and then put back, so two threads must not draw at once.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from pipeline.look.html import data_uri
from pipeline.texts import shortened

SETTINGS = {"svg.hashsalt": "maskmill", "svg.fonttype": "none", "font.size": 9.5, "axes.axisbelow": True}
"""The salt makes the ids in an SVG the same each time; texts stay texts."""
FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
"""What a page is set in; matplotlib would name its own fonts, which few machines have."""
LONGEST_NAME = 40
"""Characters of a name that stands beside the axes."""
NARROW, WIDE = (4.4, 2.5), (8.2, 3.0)
"""Width and height in inches, of 72 pixels."""

Axes = Any
"""matplotlib.axes.Axes, whose methods are typed in part."""
_MATPLOTLIB: Any = matplotlib
_FIGURE: Any = Figure
Draw = Callable[[Axes, "Palette"], None]


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one page.

    ours      what was counted
    lost      what a step took away
    other     what it is compared with
    low, high ends of the heat map's colours
    """

    ink: str
    soft: str
    line: str
    ours: str
    lost: str
    other: str
    low: str
    high: str


LIGHT = Palette("#1d2433", "#596274", "#e3e7ee", "#2f6f9f", "#cfdde8", "#b3541e", "#eef3f7", "#1f5480")
DARK = Palette("#e6e9ef", "#a2abba", "#2c3340", "#6fb1de", "#2f4659", "#eb9a63", "#1c232d", "#8ecbf5")


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawing as data URIs, for a light and for a dark page."""

    light: str
    dark: str


def plot(draw: Draw, size: tuple[float, float]) -> Plot:
    """The same drawing has the same bytes."""
    light = _svg(draw, LIGHT, size)
    # The palette decides colours and nothing else. Those of a heat map are in pixels, which are drawn again.
    dark = _svg(draw, DARK, size) if "<image" in light else _in_the_dark(light)
    return Plot(*(data_uri(svg.encode(), "image/svg+xml") for svg in (light, dark)))


def bars(labels: Sequence[str], shares: Sequence[float], texts: Sequence[str], *, x: str, y: str) -> Draw:
    """Bars that stand on names. `shares` are in [0, 1], `texts` stand above the bars."""

    def draw(axes: Axes, palette: Palette) -> None:
        axes.bar(range(len(labels)), _percent(shares), width=0.66, color=palette.ours)
        axes.set_xticks(range(len(labels)), labels)
        for number, (share, text) in enumerate(zip(shares, texts, strict=True)):
            _over(axes, (number, 100 * share), text, palette)
        axes.set_ylim(0, 118 * max(shares, default=1) or 1)
        _named(axes, palette, x=x, y=y)

    return draw


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across a histogram, with its name."""

    at: float
    name: str


def steps(edges: Sequence[float], shares: Sequence[float], *, x: str, y: str, mark: Mark | None = None) -> Draw:
    """A histogram. `shares` are in [0, 1]. A mark outside of the edges is not drawn."""

    def draw(axes: Axes, palette: Palette) -> None:
        axes.stairs(_percent(shares), edges, fill=True, color=palette.ours)
        axes.set_xlim(edges[0], edges[-1])
        _named(axes, palette, x=x, y=y)
        if mark and edges[0] <= mark.at <= edges[-1]:
            _across(axes, mark, palette)

    return draw


def cut_steps(edges: Sequence[float], counts: Sequence[int], mark: Mark, *, x: str, above_stays: bool) -> Draw:
    """A histogram of candidates that a threshold, at one of the edges, parts into those that stay and those removed."""
    below = sum(edge < mark.at for edge in edges)

    def draw(axes: Axes, palette: Palette) -> None:
        axes.stairs(counts[:below], edges[: below + 1], fill=True, color=palette.lost)
        axes.stairs(counts[below:], edges[below:], fill=True, color=palette.ours if above_stays else palette.lost)
        axes.set_xlim(edges[0], edges[-1])
        _named(axes, palette, x=x, y="candidates")
        axes.yaxis.set_major_formatter(FuncFormatter(_as_count))
        _across(axes, mark, palette)

    return draw


def log_steps(edges: Sequence[float], shares: Sequence[float], *, x: str, y: str) -> Draw:
    """The same with a logarithmic axis, as a line: the height of a bar would mean nothing."""

    def draw(axes: Axes, palette: Palette) -> None:
        axes.set_yscale("log")
        axes.stairs(_percent(shares), edges, color=palette.ours, linewidth=1.8, baseline=None)
        axes.set_xlim(edges[0], edges[-1])
        _named(axes, palette, x=x, y=y)
        axes.yaxis.set_minor_locator(NullLocator())

    return draw


def lying(labels: Sequence[str], left: Sequence[int], lost: Sequence[int], texts: Sequence[str]) -> Draw:
    """Bars from above to below: what is left after each step, and beside it what the step took away."""

    def draw(axes: Axes, palette: Palette) -> None:
        rows = range(len(labels))
        axes.barh(rows, left, height=0.62, color=palette.ours)
        axes.barh(rows, lost, left=left, height=0.62, color=palette.lost)
        for row, (kept, gone, text) in enumerate(zip(left, lost, texts, strict=True)):
            axes.annotate(
                text, (kept + gone, row), xytext=(6, 0), textcoords="offset points", va="center", color=palette.ink
            )
        axes.set_yticks(rows, labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.32 * max(1, *left))
        axes.set_xticks([])
        _bare(axes, palette)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", colors=palette.ink)

    return draw


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the ends of what it may be; without ends nothing is known of that."""

    name: str
    mean: float
    ends: tuple[float, float] | None


def intervals(rows: Sequence[Interval], *, x: str) -> Draw:
    """Means with their intervals, from above to below."""

    def draw(axes: Axes, palette: Palette) -> None:
        for row, each in enumerate(rows):
            if each.ends:
                axes.plot(each.ends, (row, row), color=palette.ours, linewidth=4, alpha=0.45, solid_capstyle="round")
            axes.plot(each.mean, row, "o", color=palette.ours)
        axes.set_yticks(range(len(rows)), [shortened(each.name, LONGEST_NAME) for each in rows], parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel(x, color=palette.soft)
        axes.grid(axis="x", color=palette.line, linewidth=0.8)
        _bare(axes, palette)
        axes.tick_params(axis="y", colors=palette.ink)

    return draw


def cells(counts: Sequence[Sequence[int]]) -> Draw:
    """A heat map of an image, with the first row above."""

    def draw(axes: Axes, palette: Palette) -> None:
        colours = LinearSegmentedColormap.from_list("counts", [palette.low, palette.high])
        axes.imshow(counts, cmap=colours, vmin=0, interpolation="nearest", aspect="equal")
        axes.set_xticks([0, len(counts[0]) - 1], ["left", "right"])
        axes.set_yticks([0, len(counts) - 1], ["top", "bottom"])
        _bare(axes, palette)

    return draw


def _across(axes: Axes, mark: Mark, palette: Palette) -> None:
    """The name stands above the axes, on the side of the line that has more room."""
    low, high = axes.get_xlim()
    right = mark.at > (low + high) / 2
    axes.axvline(mark.at, color=palette.other, linewidth=1.4, linestyle=(0, (4, 3)))
    axes.annotate(
        mark.name,
        (mark.at, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if right else 4, 2),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom",
        color=palette.other,
    )


def _over(axes: Axes, at: tuple[float, float], text: str, palette: Palette) -> None:
    axes.annotate(text, at, xytext=(0, 4), textcoords="offset points", ha="center", color=palette.ink)


def _named(axes: Axes, palette: Palette, *, x: str, y: str) -> None:
    _bare(axes, palette)
    axes.set_xlabel(x, color=palette.soft)
    axes.set_ylabel(y, color=palette.soft)
    axes.grid(axis="y", color=palette.line, linewidth=0.8)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(_as_percent))


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]


def _as_percent(value: float, _: int) -> str:
    return f"{value:g}%"


def _as_count(value: float, _: int) -> str:
    return f"{value:,.0f}"


def _bare(axes: Axes, palette: Palette) -> None:
    """No frame but the line below."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.line)
    axes.tick_params(colors=palette.soft, length=0, pad=5)


def _svg(draw: Draw, palette: Palette, size: tuple[float, float]) -> str:
    file = io.BytesIO()
    with _MATPLOTLIB.rc_context(), warnings.catch_warnings():
        # Names may be in any script. The font that measures them need not have it, for the page sets its own.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        _MATPLOTLIB.rcdefaults()  # whatever a matplotlibrc of this machine says
        _MATPLOTLIB.rcParams.update(SETTINGS)
        figure = _FIGURE(figsize=size, layout="constrained")
        draw(figure.subplots(), palette)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _in_our_fonts(file.getvalue().decode())


_DARK_OF = dict(zip(astuple(LIGHT), astuple(DARK), strict=True))
_LIGHT_COLOUR = re.compile("|".join(_DARK_OF))


def _in_the_dark(svg: str) -> str:
    """The colours of its elements; a name that looks like one is between them, and stays."""
    return re.sub("<[^<>]*>", lambda tag: _LIGHT_COLOUR.sub(lambda found: _DARK_OF[found[0]], tag[0]), svg)


def _in_our_fonts(svg: str) -> str:
    """Each size and weight stays as it is. Versions of matplotlib write `font` or `font-family`, and quote alike."""
    return re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, svg)
