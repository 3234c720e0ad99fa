"""Charts say what they are: a title, both axes with their units, every number also in a table, and names as text."""

import html
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from plotly.graph_objects import Figure
from reports import HOSTILE, figures, full_data, read, trial
from vinnow.pipelines.report.build import page
from vinnow.pipelines.report.charts import (
    MOST,
    NAME,
    Frame,
    Point,
    Series,
    band_chart,
    bar_chart,
    fit,
    histogram,
    line_chart,
    small_chart,
)
from vinnow.pipelines.report.data import Picked, ReportData, Similarity

FRAME = Frame("chart-any", "Any", "1", "place (number)", "value (unit)", 0.0, 9.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return full_data(tmp_path_factory.mktemp("charts"))


def crowded(data):
    """A report with more and longer names than fit, and lines far outside of what is drawn."""
    budgets = [f"{i + 1}0%" for i in range(9)]
    trials = [trial(name, budget, 665_298, 0.4) for name in ("random", "less") for budget in budgets]
    trials += [replace(trial("full", "100%", 1, 0.6), variant="v" * 80)]
    many = {f"task of a long name {i}": 10 + i for i in range(60)}
    low = Similarity("less", data.similarity[0].scores_N, {"1%": 9.0, "10%": -9.0, "a budget of rows": 0.0})
    return ReportData(
        trials=trials,
        majority=data.majority,
        pool_tasks=many,
        picked=[Picked(HOSTILE, "10%", many)],
        similarity=[low],
        trajectories=data.trajectories,
    )


def test_every_chart_shows_its_title_and_both_axes_with_units(data):
    drawn = figures(page(data))
    assert len(drawn) == 8
    for figure in drawn.values():
        layout = figure["layout"]
        assert layout["title"]["text"]
        for axis in ("xaxis", "yaxis"):
            label = layout[axis]["title"]["text"]
            assert re.fullmatch(r"\S.* \(.+\)", label), label
            # names and numbers make room for themselves
            assert layout[axis]["automargin"]
        low, high = layout["yaxis"]["range"]
        assert low < high


def test_every_figure_is_one_by_plotly_s_own_schema(data):
    for report in (data, crowded(data)):
        for name, figure in figures(page(report)).items():
            again = Figure(figure).to_plotly_json()
            assert len(again["data"]) == len(figure["data"]) > 0, name
            with pytest.raises(ValueError, match="Invalid property"):
                Figure({"data": figure["data"], "layout": figure["layout"] | {"tilte": ""}})


def strings(value, key=""):
    """Every text in a figure, with the key that it stands under."""
    if isinstance(value, dict):
        return [pair for k, one in value.items() for pair in strings(one, k)]
    if isinstance(value, list):
        return [pair for one in value for pair in strings(one, key)]
    return [(key, value)] if isinstance(value, str) else []


def test_colours_are_the_page_s_own_and_names_stay_text(data):
    markup = page(data)
    style = re.search("<style>(.*?)</style>", markup, re.DOTALL).group(1)
    texts = [pair for figure in figures(markup).values() for pair in strings(figure)]
    colours = {text for key, text in texts if key.endswith("color")}
    assert {"var(--c0)", "var(--c6)", "var(--ink)", "var(--page)"} <= colours
    for colour in colours:
        # in the light, in the dark, and in the dark that is asked for by the page's button
        assert style.count(f"{re.fullmatch(r'var[(](--[a-z0-9]+)[)]', colour)[1]}:") == 3, colour
    # Plotly reads tags and entities in its texts: none of ours has one but those that stand for a letter
    assert sum("&lt;script" in text for _, text in texts) >= 4
    for _, text in texts:
        assert "<" not in text
        assert html.escape(html.unescape(text), quote=False) == text
        assert "\x00" not in text


def test_names_are_cut_and_places_thinned_but_numbers_stay(data):
    drawn = figures(page(crowded(data)))
    for figure in drawn.values():
        for trace in figure["data"]:
            assert len(html.unescape(trace.get("name", ""))) <= NAME
    names = [trace["name"] for trace in drawn["chart-accuracy"]["data"]]
    assert any(re.fullmatch(r"whole pool, v+… 60\.0", n) for n in names), names
    axis = drawn["chart-picks-0"]["layout"]["xaxis"]
    assert len(axis["tickvals"]) == len(axis["ticktext"]) <= MOST
    # what one points at is told in full
    (pool, mine) = drawn["chart-picks-0"]["data"]
    assert pool["hovertext"][-1].startswith("pool, task of a long name 0: ")
    assert mine["hovertext"][0].startswith(html.escape(HOSTILE.replace("\x00", "�"), quote=False))


def cells(chart):
    return [[c for c in row if c] for row in chart.table.rows]


def test_what_is_drawn_stands_in_a_table_too():
    series = [Series("a", 0, [Point(0, 2.0, 1.0, 4.5), Point(1, 3.0, 3.0, 3.0)]), Series("b", 1, [Point(1, 5, 4, 6)])]
    line = line_chart(FRAME, ["p", "q"], series, [("all", 7.0)])
    assert cells(line) == [["a", "p", "2", "1", "4.5"], ["a", "q", "3"], ["b", "q", "5", "4", "6"], ["all", "all", "7"]]
    a, b, reference = line.figure["data"]
    assert (a["error_y"]["array"], a["error_y"]["arrayminus"]) == ([2.5, 0.0], [1.0, 0.0])
    # side by side, each at its place; the line is as wide as the axis
    assert a["x"][1] < 1 < b["x"][0]
    assert np.round(a["x"] + b["x"]).tolist() == [0, 1, 1]
    assert (reference["x"], reference["y"]) == ([-0.5, 1.5], [7.0, 7.0])
    assert (a["marker"]["symbol"], b["marker"]["symbol"]) == ("circle", "triangle-up")

    band = band_chart(FRAME, 2, series[:1], [])
    assert cells(band) == [["a", "0", "2", "1", "4.5"], ["a", "1", "3"]]
    assert band.figure["data"][0]["y"] == [1.0, 3.0, 3.0, 4.5]

    bars = histogram(FRAME, [0.0, 1.0, 3.0], [4, 0], [("taken from 2", 2.0)])
    assert cells(bars) == [["0", "1", "4"], ["taken from 2"]]
    drawn, mark = bars.figure["data"]
    assert (drawn["x"], drawn["width"], drawn["y"]) == ([0.5, 2.0], [1.0, 2.0], [4, 0])
    assert (mark["x"], mark["y"], mark["name"]) == ([2.0, 2.0], [0.0, 9.0], "taken from 2")

    small = small_chart(FRAME, [10, 2000], [1.0, 2.0], ([0.5, 1.5], [1.5, 2.5]))
    assert cells(small) == [["10", "1", "0.5", "1.5"], ["2,000", "2", "1.5", "2.5"]]
    assert small.figure["data"][1]["x"] == [10, 2000]

    groups = bar_chart(FRAME, ["p", "q"], [Series("a", 0, [Point(0, 2, 2, 2), Point(1, 3, 3, 3)])])
    assert groups.table is None
    assert (groups.figure["data"][0]["x"], groups.figure["data"][0]["y"]) == ([0, 1], [2, 3])


def test_the_numbers_of_a_chart_are_in_the_page_without_a_script(data):
    markup = re.sub("<script.*?</script>", "", page(data), flags=re.DOTALL)
    seen = read(markup)
    assert seen.tags.count("noscript") == 1
    text = " ".join(seen.text)
    middle = data.trajectories.median_CT[1]
    for words in ("10%: taken from 1.282", "whole pool 75.0", "median 123", *(f"{v:.4g}" for v in middle)):
        assert words in text, words


def test_a_value_that_is_no_number_is_a_gap():
    gap = line_chart(FRAME, ["p"], [Series("a", 0, [Point(0, math.nan, math.nan, math.nan)])], [])
    assert cells(gap) == [["a", "p", "–", "–", "–"]]


def test_what_does_not_fit_is_cut():
    assert fit("accuracy", 100) == "accuracy"
    assert fit("accuracy", 5) == "accu…"
    assert fit("accuracy", 1) == "…"
