"""Charts say what they are: a title, both axes with their units, and no word outside of the picture."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from reports import HOSTILE, full_data, trial
from vinnow.pipelines.report.build import page
from vinnow.pipelines.report.data import Picked, ReportData, Similarity
from vinnow.pipelines.report.svg import fit


def charts(markup):
    """Every picture of a page but the legend's signs, as elements."""
    found = [ElementTree.fromstring(s) for s in re.findall("<svg.*?</svg>", markup, re.DOTALL)]
    return [c for c in found if c.get("aria-hidden") is None]


def texts(chart, kind):
    return [t.text for t in chart.iter("text") if kind in t.get("class").split()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return full_data(tmp_path_factory.mktemp("charts"))


def test_every_chart_shows_its_title_and_both_axes_with_units(data):
    found = charts(page(data))
    assert len(found) == 7
    for chart in found:
        (title,) = texts(chart, "heading")
        assert title == chart.find("title").text
        for axis in ("x", "y"):
            (label,) = texts(chart, axis)
            assert re.fullmatch(r"\S.* \(.+\)", label), label
        # and numbers on the vertical axis, which its name stands above
        ticks = [t for t in chart.iter("text") if t.get("class") == "tick" and re.fullmatch(r"[-\d.,e+]+", t.text)]
        (name,) = [t for t in chart.iter("text") if "y" in t.get("class").split()]
        assert len([t for t in ticks if t.get("text-anchor") == "end"]) >= 2
        assert all(float(name.get("y")) < float(t.get("y")) for t in ticks)


def reach(text):
    """Where a text begins and ends: six units a letter at least."""
    x, width = float(text.get("x")), 6 * len(text.text)
    begin = {"start": x, "middle": x - width / 2, "end": x - width}[text.get("text-anchor")]
    return begin, begin + width


def test_no_word_leaves_the_picture(data):
    budgets = [f"{i + 1}0%" for i in range(9)]
    trials = [trial(name, budget, 665_298, 0.4) for name in ("random", "less") for budget in budgets]
    trials += [replace(trial("full", "100%", 1, 0.6), variant="v" * 80)]
    many = {f"task of a long name {i}": 10 + i for i in range(60)}
    low = Similarity("less", data.similarity[0].scores_N, {"1%": 9.0, "10%": -9.0, "a budget of rows": 0.0})
    crowded = ReportData(
        trials=trials,
        majority=data.majority,
        pool_tasks=many,
        picked=[Picked(HOSTILE, "10%", many)],
        similarity=[low],
        trajectories=data.trajectories,
    )
    for report in (data, crowded):
        for chart in charts(page(report)):
            width, height = map(float, chart.get("viewBox").split()[2:])
            for text in chart.iter("text"):
                begin, end = reach(text)
                assert begin >= -1, text.text
                assert end <= width + 1, text.text
                assert 0 < float(text.get("y")) < height, text.text
    # a number that a name is cut for is still there
    assert any("whole pool, vvv" in t and t.endswith("… 60.0") for c in charts(page(crowded)) for t in texts(c, "tick"))


def test_what_does_not_fit_is_cut():
    assert fit("accuracy", 100) == "accuracy"
    assert fit("accuracy", 33, 6.6) == "accu…"
    assert fit("accuracy", 1) == "…"
