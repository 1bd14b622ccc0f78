"""The charts: what they say, their tables, and that a drawing is the same each time."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from dataclasses import astuple
from typing import Any

import matplotlib
import pytest

from pipeline.look.plots import DARK, LIGHT, NARROW, Interval, Mark, cut_steps, intervals, log_steps, plot
from pipeline.report.charts import Chart, charts_of
from pipeline.report.records import Bin, Histogram
from tests.report.reports import empty_report, full_report, histogram

FULL = full_report()
PARAMETERS: Any = matplotlib.rcParams


def svg_of(uri: str) -> str:
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


def chart(key: str, **changes: object) -> Chart:
    [found] = [each for each in charts_of(full_report(**changes)) if each.words.key == key]
    return found


def test_the_same_drawing_has_the_same_bytes_whatever_matplotlib_was_told_before() -> None:
    """A page that differs without a difference cannot be compared. What others set stays as it was."""
    drawings = [each.draw for each in charts_of(FULL)[:4] if each.draw]
    first = [plot(draw, NARROW) for draw in drawings]
    settings = {"lines.linewidth": 9.0, "font.size": 30.0, "axes.facecolor": "red", "svg.hashsalt": None}
    before = dict(PARAMETERS)
    PARAMETERS.update(settings)
    try:
        assert [plot(draw, NARROW) for draw in drawings] == first
        assert {name: PARAMETERS[name] for name in settings} == settings
    finally:
        PARAMETERS.update({name: before[name] for name in settings})


def test_every_chart_is_drawn_for_a_light_and_a_dark_page_and_needs_nothing_from_elsewhere() -> None:
    """No date, no address but those of namespaces, and the colours of the right page."""
    for each in charts_of(FULL):
        assert each.draw is not None
        drawn = plot(each.draw, each.size)
        light, dark = svg_of(drawn.light), svg_of(drawn.dark)
        assert [any(colour in svg for colour in astuple(LIGHT)) for svg in (light, dark)] == [True, False]
        assert [any(colour in svg for colour in astuple(DARK)) for svg in (light, dark)] == [False, True]
        for svg in (light, dark):
            root = ET.fromstring(svg)
            links = {value for element in root.iter() for name, value in element.items() if name.endswith("href")}
            assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
            assert "<dc:date>" not in svg
            assert "DejaVu" not in svg


def test_a_name_that_looks_like_a_colour_is_the_same_on_both_pages() -> None:
    """The colours of a drawing are exchanged; what it says is data."""
    named = intervals([Interval(f'{LIGHT.ours} <path style="fill: {LIGHT.ink}"/>', 3.0, (2.0, 4.0))], x="masks")
    drawn = plot(named, NARROW)
    texts = ["".join(ET.fromstring(svg_of(page)).itertext()) for page in (drawn.light, drawn.dark)]
    assert LIGHT.ours in texts[0]
    assert texts[0] == texts[1]


def test_every_chart_says_its_message_and_has_its_numbers_as_a_table() -> None:
    """For whoever does not see it. Each row of a table has a cell for each of its heads."""
    for each in charts_of(FULL):
        assert each.alt.endswith(".")
        assert each.words.definition.endswith(".")
        assert each.rows
        assert {len(row) for row in each.rows} == {len(each.head)}
    assert len({each.words.key for each in charts_of(FULL)}) == len(charts_of(FULL)) == 11


def test_the_funnel_counts_what_is_left_after_each_step() -> None:
    """The last step leaves what was kept."""
    funnel = chart("funnel")
    assert funnel.alt == "Of 73,728 candidates 0.7% were kept. Most were removed as at the edge of a crop: 57.1%."
    assert funnel.rows[0] == ("candidates", "0", "73,728", "100.0%")
    assert funnel.rows[3] == ("at the edge of a crop", "42,069", "22,954", "31.1%")
    assert funnel.rows[-2][2] == funnel.rows[-1][2] == "502"
    assert all(each.words.key != "funnel" for each in charts_of(full_report(funnel=None)))


def test_a_histogram_says_where_its_median_lies_and_what_is_outside_of_its_edges() -> None:
    """Values beyond the edges are not drawn, so the table must say them."""
    counted = histogram([1, 2, 3, 4], low=0.5, high=0.9, below=1, above=2)
    stability = chart("stability", stability=counted)
    assert stability.alt == "The median of 13 masks lies between 0.7 and 0.8."
    assert stability.rows[0] == ("below 0.5", "1", "7.7%")
    assert stability.rows[1] == ("0.5 to 0.6", "1", "7.7%")
    assert stability.rows[-1] == ("above 0.9", "2", "15.4%")
    for below, above, said in ((9, 0, "below 0.5"), (0, 9, "above 0.9")):
        outside = Histogram((0.5, 0.9), (1,), below, above)
        assert chart("stability", stability=outside).alt == f"Half of the masks are {said}."


def test_bins_say_which_is_the_most_frequent_and_the_map_says_how_much_is_in_the_middle() -> None:
    """A message is a number, and not only the name of the figure."""
    assert chart("masks-per-image").alt == "42.9% of the images have 11-50 masks."
    assert chart("layers").alt == "59.8% of the masks are of layer 0."
    assert chart("depth").alt == "40.0% of the covered pixels lie under 1 mask."
    assert chart("centres").alt.endswith("of the masks have their centre in the middle ninth.")
    assert [row[0] for row in chart("centres").rows] == ["top", "middle", "bottom"]


@pytest.mark.parametrize(("count", "said"), [(0, "0.0%"), (1, "<0.1%"), (9_999, ">99.9%"), (10_000, "100.0%")])
def test_a_share_is_neither_none_nor_all_unless_it_is(count: int, said: str) -> None:
    """One failure in ten thousand is not none."""
    bins = (Bin("0-10", count), Bin("11-50", 10_000 - count))
    assert chart("masks-per-image", masks_per_image=bins).rows[0][2] == said


def test_a_report_without_masks_has_charts_with_nothing_drawn() -> None:
    """A run in which every image failed has a report too."""
    charts = charts_of(empty_report())
    assert [each.draw for each in charts] == [None] * len(charts)
    assert all(each.alt.startswith("No ") for each in charts)


def test_a_logarithmic_axis_takes_empty_bins() -> None:
    """Zero has no logarithm; warnings are errors here."""
    assert plot(log_steps((0.0, 0.5, 1.0), (1.0, 0.0), x="x", y="y"), NARROW).light.startswith("data:image/svg+xml;")


def coloured(uri: str, colour: str) -> list[str]:
    """The outlines of one colour."""
    found = ET.fromstring(svg_of(uri)).iter("{http://www.w3.org/2000/svg}path")
    return [path.attrib["d"] for path in found if colour in path.attrib.get("style", "")]


def test_a_threshold_parts_a_histogram_into_what_stays_and_what_is_removed() -> None:
    mark = Mark(0.4, "threshold 0.4")
    stays = plot(cut_steps([0.0, 0.2, 0.4, 1.0], [3, 1, 5], mark, x="score", above_stays=True), NARROW)
    assert [len(coloured(stays.light, f"fill: {colour}")) for colour in (LIGHT.lost, LIGHT.ours)] == [1, 1]
    removed = plot(cut_steps([0.4, 0.6, 1.0], [1, 5], mark, x="score", above_stays=False), NARROW)
    assert not coloured(removed.light, f"fill: {LIGHT.ours}")
    assert "threshold 0.4" in svg_of(stays.light)


def test_intervals_have_one_scale_and_names_stay_text() -> None:
    """Also those that matplotlib would set as formulas, and those of a script that its font does not have."""
    rows = [Interval("$\\frac{1}$", 10.0, (5.0, 15.0)), Interval("狗", 30.0, None)]
    svg = svg_of(plot(intervals(rows, x="masks per image"), NARROW).light)
    assert "$\\frac{1}$" in svg
    assert "狗" in svg
    [line] = coloured(plot(intervals(rows, x="masks per image"), NARROW).light, "stroke-linecap: round")
    low, high = [float(x) for x in line.replace("M", "").replace("L", "").split()[0::2]]
    dots = [float(each.attrib["x"]) for each in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}use")]
    assert any(abs(dot - (low + high) / 2) < 0.01 for dot in dots)
