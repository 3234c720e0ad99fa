"""Plotly figures as plain data: hover, zoom, legend and picture download come with the library, which `build.py` puts in.

Colours are names of the page's own (`var(--c0)`), which `draw.js` looks up: light and dark live in `report.css` alone.
Every chart has a title, a name and a unit on both axes, a description for who cannot see it, and its numbers as a table.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .data import FULL, RANDOM
from .markup import Table, clean

COLORS = 7
# of random and of the whole pool, on the whole page
GREY = COLORS - 1
# letters of a name in a legend or title, and of a place on the axis; more places than MOST have not each their name
NAME, PLACE, MOST = 60, 24, 30
SIGNS = ("circle", "triangle-up", "square", "diamond")
# pixels: of a chart, of a small one, of a line of the legend; and letters in that, where a chart is narrowest
HEIGHT, SMALL, LEGEND, NARROW = 400, 240, 19, 64


@dataclass(frozen=True)
class Point:
    """A value with its interval, at place `x` of the axis; `low == high == y` draws no whisker."""

    x: int
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """A named line or set of bars; `color` is a number below COLORS (6 is the neutral grey)."""

    name: str
    color: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Frame:
    """What every chart says of itself: a name of its own in the page, labels with their units, its vertical range."""

    name: str
    title: str
    description: str
    x_label: str
    y_label: str
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """A figure as Plotly's JSON, its words, and its numbers; `table` is None where they stand beside it already."""

    frame: Frame
    figure: dict[str, Any]
    table: Table | None


@dataclass(frozen=True)
class Spot:
    """One mark of a scatter chart: `y` with its interval; marks of one `name` are one line of the legend."""

    name: str
    color: int
    x: float
    y: tuple[float, float, float]
    label: str
    front: bool = False


def colors(names: Sequence[str]) -> dict[str, int]:
    """Give each selector one colour for the whole page; random and the pool are grey."""
    others = [n for n in dict.fromkeys(names) if n not in (RANDOM, FULL)]
    return {n: i % GREY for i, n in enumerate(others)} | {RANDOM: GREY, FULL: GREY}


def line_chart(
    frame: Frame, labels: Sequence[str], series: Sequence[Series], lines: Sequence[tuple[str, float]]
) -> Chart:
    """Draw series over categories with whiskers, and dashed reference `lines` named in the legend."""
    traces = []
    for number, one in enumerate(series):
        # series stand side by side, so that their whiskers do not hide each other
        shift = (number - (len(series) - 1) / 2) * min(0.04, 0.8 / (len(series) + 1))
        places = [p.x + shift for p in one.points]
        drawn = _line(one, number, places, [f"{one.name}, {labels[p.x]}: {_interval(p)}" for p in one.points])
        if any(p.low != p.high for p in one.points):
            up, down = [p.high - p.y for p in one.points], [p.y - p.low for p in one.points]
            bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
            drawn["error_y"] = bars | {"color": _color(one.color), "thickness": 1.4, "width": 4}
        traces.append(drawn)
    traces += [_reference(name, value, [-0.5, len(labels) - 0.5]) for name, value in lines]
    rows = [[one.name, labels[p.x], *_numbers(p)] for one in series for p in one.points]
    rows += [[name, "all", short(value), "", ""] for name, value in lines]
    table = Table(f"{frame.title}: the numbers", ["line", frame.x_label, frame.y_label, "from", "to"], rows, {2, 3, 4})
    return Chart(frame, _figure(frame, traces, _places(labels)), table)


def band_chart(frame: Frame, steps: int, series: Sequence[Series], lines: Sequence[tuple[str, float]]) -> Chart:
    """Draw series over `steps` numbered places (layers), each with the band of its intervals, and reference `lines`."""
    traces = []
    for number, one in enumerate(series):
        places = [p.x for p in one.points]
        traces.append(_band(one.color, places, [p.low for p in one.points], [p.high for p in one.points], one.name))
        hints = [f"{one.name}, at {p.x}: {_interval(p)}" for p in one.points]
        traces.append(_line(one, number, places, hints) | {"legendgroup": plain(one.name)})
    traces += [_reference(name, value, [-0.5, steps - 0.5]) for name, value in lines]
    rows = [[one.name, str(p.x), *_numbers(p)] for one in series for p in one.points]
    table = Table(
        f"{frame.title}: the numbers", ["line", frame.x_label, frame.y_label, "from", "to"], rows, {1, 2, 3, 4}
    )
    return Chart(frame, _figure(frame, traces, _places([str(i) for i in range(steps)])), table)


def bar_chart(frame: Frame, labels: Sequence[str], series: Sequence[Series]) -> Chart:
    """Draw grouped bars, one group a label, one bar a series; a table of them is the caller's."""
    traces = [
        {
            "type": "bar",
            "name": plain(one.name),
            "x": [p.x for p in one.points],
            "y": [p.y for p in one.points],
            "hovertext": [hint(f"{one.name}, {labels[p.x]}: {short(p.y)}") for p in one.points],
            "hoverinfo": "text",
            "marker": {"color": _color(one.color)},
        }
        for one in series
    ]
    return Chart(frame, _figure(frame, traces, _places(labels)), None)


def histogram(
    frame: Frame, edges: Sequence[float], counts: Sequence[int], lines: Sequence[tuple[str, float]], what: str = "rows"
) -> Chart:
    """Draw counts of `what` between `edges` (one more than counts), with named vertical `lines` (thresholds)."""
    spans = list(pairwise(edges))
    bars = {
        "type": "bar",
        "name": what,
        "x": [(low + high) / 2 for low, high in spans],
        "y": list(counts),
        "width": [high - low for low, high in spans],
        "hovertext": [f"{short(a)} to {short(b)}: {n:,} {what}" for (a, b), n in zip(spans, counts, strict=True)],
        "hoverinfo": "text",
        "marker": {"color": _color(0)},
        "showlegend": False,
    }
    marks = []
    for number, (name, value) in enumerate(lines):
        drawn = _reference(name, frame.high, [value, value]) | {"y": [frame.low, frame.high]}
        marks.append(drawn | {"line": {"color": _color(1), "width": 2, "dash": ("solid", "dash", "dot")[number % 3]}})
    rows = [[short(a), short(b), f"{n:,}"] for (a, b), n in zip(spans, counts, strict=True) if n]
    rows += [[name, "", ""] for name, _ in lines]
    table = Table(f"{frame.title}: the numbers", ["from", "to", what], rows, {0, 1, 2})
    return Chart(frame, _figure(frame, [bars, *marks], {}), table)


def small_chart(
    frame: Frame, steps: Sequence[int], values: Sequence[float], bands: tuple[Sequence[float], Sequence[float]]
) -> Chart:
    """Draw one small line with its band over training `steps`, on the scale that its neighbours share."""
    low, high = bands
    rows = [[f"{s:,}", *map(short, three)] for s, *three in zip(steps, values, low, high, strict=True)]
    one = Series(frame.title, 0, [Point(s, *three) for s, *three in zip(steps, values, low, high, strict=True)])
    hints = [f"step {s}: {m} ({a} to {b})" for s, m, a, b in rows]
    traces = [_band(0, steps, low, high), _line(one, 0, list(steps), hints)]
    table = Table(f"{frame.title}: the numbers", ["step", "median", "from", "to"], rows, {0, 1, 2, 3})
    figure = _figure(frame, [trace | {"showlegend": False} for trace in traces], {"nticks": 4})
    figure["layout"] |= {"height": SMALL, "margin": {"l": 46, "r": 8, "t": 34, "b": 40}}
    # beside its title there is room for the picture's download alone; it zooms by dragging, and back by a double click
    figure["layout"]["modebar"] = {"remove": ["zoom", "pan", "zoomin", "zoomout", "autoscale", "resetscale"]}
    figure["layout"]["title"]["font"]["size"] = 13
    return Chart(frame, figure, table)


def scatter_chart(frame: Frame, spots: Sequence[Spot]) -> Chart:
    """Draw marks by two numbers, with whiskers; those on the front are full and joined by steps, the others hollow."""
    traces = []
    for number, name in enumerate(dict.fromkeys(s.name for s in spots)):
        mine = [s for s in spots if s.name == name]
        sign = SIGNS[number % len(SIGNS)]
        up, down = [s.y[2] - s.y[0] for s in mine], [s.y[0] - s.y[1] for s in mine]
        bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 3}
        one = Series(name, mine[0].color, [])
        hints = [f"{s.label}: {short(s.x)}, {short(s.y[0])} ({short(s.y[1])} to {short(s.y[2])})" for s in mine]
        drawn = _line(one, number, [s.x for s in mine], hints) | {"mode": "markers", "y": [s.y[0] for s in mine]}
        signs = [sign if s.front else f"{sign}-open" for s in mine]
        drawn["marker"] = drawn["marker"] | {"symbol": signs, "size": 10}
        traces.append(drawn | {"error_y": bars | {"color": _color(one.color)}})
    front = sorted((s for s in spots if s.front), key=lambda s: s.x)
    steps = _reference("Pareto front", 0.0, [s.x for s in front])
    steps |= {"y": [s.y[0] for s in front], "hovertext": [hint(s.label) for s in front]}
    steps["line"] = steps["line"] | {"shape": "hv"}
    costs = [s.x for s in spots if s.x > 0]
    # where the dearest costs tens of times the cheapest, those would stand on one another
    axis = (
        {"type": "log"}
        if costs and max(costs) > 20 * min(costs) and len(costs) == len(spots)
        else {"rangemode": "tozero"}
    )
    rows = [[s.label, short(s.x), *map(short, s.y), "yes" if s.front else "no"] for s in spots]
    head = ["choice", frame.x_label, frame.y_label, "from", "to", "on the front"]
    table = Table(f"{frame.title}: the numbers", head, rows, {1, 2, 3, 4})
    return Chart(frame, _figure(frame, [*traces, steps], axis), table)


def fit(text: str, letters: int) -> str:
    """Return a text, or what fits of it into so many letters, with "…" at its end."""
    return text if len(text) <= letters else text[: max(0, letters - 1)].rstrip() + "…"


def plain(text: str, letters: int = NAME) -> str:
    """Return a text, cut, that Plotly shows letter by letter: it reads tags and entities in its texts as HTML does."""
    return hint(fit(text, letters))


def hint(text: str) -> str:
    """Return a whole text as `plain` does: what is shown when one points at it may be long."""
    return html.escape(clean(text), quote=False)


def short(value: float) -> str:
    """Return a number in at most four digits or with its thousands."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.1e}"


def _numbers(p: Point) -> list[str]:
    return [short(p.y), *((short(p.low), short(p.high)) if p.low != p.high else ("", ""))]


def _interval(p: Point) -> str:
    return f"{short(p.y)} ({short(p.low)} to {short(p.high)})"


def _color(number: int) -> str:
    return f"var(--c{number})"


def _line(one: Series, number: int, places: Sequence[float], hints: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(one.name),
        "x": list(places),
        "y": [p.y for p in one.points],
        "hovertext": [hint(h) for h in hints],
        "hoverinfo": "text",
        "line": {"color": _color(one.color), "width": 2.2},
        "marker": {"color": _color(one.color), "size": 9, "symbol": SIGNS[number % len(SIGNS)]},
    }


def _band(
    color: int, places: Sequence[float], low: Sequence[float], high: Sequence[float], group: str = ""
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*places, *reversed(places)],
        "y": [*low, *reversed(high)],
        "fill": "toself",
        "fillcolor": _color(color),
        "opacity": 0.2,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": plain(group),
    }


def _reference(name: str, value: float, ends: list[float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        "x": ends,
        "y": [value, value],
        "hovertext": [hint(name)] * 2,
        "hoverinfo": "text",
        "line": {"color": "var(--ink)", "width": 1.4, "dash": "dash"},
    }


def _places(labels: Sequence[str]) -> dict[str, Any]:
    """Return an axis of named places; by number, so that two names that are cut alike stay two."""
    every = math.ceil(len(labels) / MOST) or 1
    shown = range(0, len(labels), every)
    names = [plain(labels[i], PLACE) for i in shown]
    return {"tickmode": "array", "tickvals": list(shown), "ticktext": names, "range": [-0.5, len(labels) - 0.5]}


def _legend_lines(names: list[str]) -> int:
    """Return how many lines a legend may take where the page is narrow: its names stand in columns of one width."""
    widest = max((len(html.unescape(name)) for name in names), default=0)
    return math.ceil(len(names) / max(1, NARROW // (widest + 7)))


def _figure(frame: Frame, traces: list[dict[str, Any]], x_axis: dict[str, Any]) -> dict[str, Any]:
    """Return the figure as plain data, held against Plotly's own schema."""
    # here: it takes half a second to import
    from plotly.graph_objects import Figure

    axis = {
        "automargin": True,
        "gridcolor": "var(--rule)",
        "linecolor": "var(--soft)",
        "showline": True,
        "zeroline": False,
        "ticklabeloverflow": "allow",
    }
    legend = LEGEND * _legend_lines([trace["name"] for trace in traces if trace.get("showlegend", True)])
    names = [{"text": plain(n), "font": {"color": "var(--ink)", "size": 12}} for n in (frame.x_label, frame.y_label)]
    layout = {
        "title": {
            "text": plain(frame.title),
            "font": {"color": "var(--ink)", "size": 15},
            **{"x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 12}},
        },
        "xaxis": axis | {"title": names[0], "showgrid": False} | x_axis,
        "yaxis": axis | {"title": names[1], "range": [frame.low, frame.high]},
        "font": {"family": "system-ui, sans-serif", "color": "var(--soft)", "size": 12},
        "paper_bgcolor": "var(--page)",
        "plot_bgcolor": "var(--page)",
        "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": "var(--soft)", "font": {"color": "var(--ink)"}},
        # between title and plot: below, names of places that are turned would run into it
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "margin": {"l": 60, "r": 16, "t": 44 + legend, "b": 48},
        "barmode": "group",
        "bargap": 0.2,
        "height": HEIGHT + legend,
        # what was zoomed into stays so when the page turns dark
        "uirevision": "kept",
    }
    figure = Figure({"data": traces, "layout": layout}).to_plotly_json()
    # the library's own look, 7 KB a figure
    figure["layout"].pop("template", None)
    return figure
