"""Small charts as inline SVG: colours are classes (`s0`…, light and dark), shapes tell series apart too.

Coordinates are user units of the viewBox; y grows downwards. Every chart has a title, a name and a unit on both axes,
and a description for who cannot see it. Texts that do not fit are cut with "…", since what leaves the viewBox is not seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Html, esc, join, tag

WIDTH, HEIGHT = 720.0, 370.0
LEFT, RIGHT, TOP, BOTTOM = 68.0, 16.0, 50.0, 46.0
COLORS = 7
# about the width of a letter: of text, and of titles
LETTER, BOLD = 6.6, 8.0


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
    """What every chart says of itself (labels with their units), its vertical range and its margin on the right."""

    title: str
    description: str
    x_label: str
    y_label: str
    low: float
    high: float
    right: float = RIGHT

    @property
    def end(self) -> float:
        """Where the plot ends on the right; names of reference lines stand behind it."""
        return WIDTH - self.right

    def y(self, value: float) -> float:
        """Return a value's place, kept inside the frame."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def line_chart(
    frame: Frame, labels: Sequence[str], series: Sequence[Series], lines: Sequence[tuple[str, float]]
) -> Html:
    """Draw series over categories with whiskers, and dashed reference `lines` named in the right margin."""
    slot = (frame.end - LEFT) / max(len(labels), 1)
    drawn = [_axes(frame, labels)]
    free = 0.0
    for name, value in sorted(lines, key=lambda line: -line[1]):
        y = frame.y(value)
        drawn.append(tag("line", x1=LEFT, x2=frame.end, y1=y, y2=y, class_="reference"))
        # names of lines that lie close together are moved apart
        free = max(y + 4, free + 15)
        drawn.append(_text(fit(name, frame.right - 6), frame.end + 6, free, "start"))
    for number, one in enumerate(series):
        # series stand side by side, so that their whiskers do not hide each other
        shift = (number - (len(series) - 1) / 2) * min(16.0, slot / (len(series) + 1))
        places = [(LEFT + slot * (p.x + 0.5) + shift, p) for p in one.points]
        path = " ".join(f"{x:.1f},{frame.y(p.y):.1f}" for x, p in places)
        marks = [tag("polyline", points=path, class_="path")]
        for x, p in places:
            hint = f"{one.name}, {labels[p.x]}: {_short(p.y)} ({_short(p.low)} to {_short(p.high)})"
            marks += [_whisker(frame, x, p), _marker(number, x, frame.y(p.y), hint)]
        drawn.append(tag("g", *marks, class_=f"s{one.color}"))
    return join([_svg(frame, drawn), _legend(series, marks=True)])


def band_chart(frame: Frame, steps: int, series: Sequence[Series], lines: Sequence[tuple[str, float]]) -> Html:
    """Draw series over `steps` numbered places (layers), each with the band of its intervals, and reference `lines`."""
    slot = (frame.end - LEFT) / max(steps, 1)
    drawn = [_axes(frame, [str(i) for i in range(steps)])]
    for name, value in lines:
        y = frame.y(value)
        drawn += [tag("line", x1=LEFT, x2=frame.end, y1=y, y2=y, class_="reference")]
        drawn += [_text(name, frame.end + 6, y + 4, "start")]
    for number, one in enumerate(series):
        places = [(LEFT + slot * (p.x + 0.5), p) for p in one.points]
        band = [f"{x:.1f},{frame.y(p.low):.1f}" for x, p in places]
        band += [f"{x:.1f},{frame.y(p.high):.1f}" for x, p in reversed(places)]
        path = " ".join(f"{x:.1f},{frame.y(p.y):.1f}" for x, p in places)
        marks = [tag("polygon", points=" ".join(band), class_="band"), tag("polyline", points=path, class_="path")]
        for x, p in places:
            hint = f"{one.name}, at {p.x}: {_short(p.y)} ({_short(p.low)} to {_short(p.high)})"
            marks.append(_marker(number, x, frame.y(p.y), hint))
        drawn.append(tag("g", *marks, class_=f"s{one.color}"))
    return join([_svg(frame, drawn), _legend(series, marks=True)])


def bar_chart(frame: Frame, labels: Sequence[str], series: Sequence[Series]) -> Html:
    """Draw grouped bars: one group a label, one bar a series."""
    slot = (frame.end - LEFT) / max(len(labels), 1)
    width = min(26.0, slot * 0.8 / max(len(series), 1))
    drawn = [_axes(frame, labels)]
    for number, one in enumerate(series):
        bars = []
        for p in one.points:
            x = LEFT + slot * (p.x + 0.5) + (number - len(series) / 2) * width
            y = frame.y(p.y)
            hint = tag("title", f"{one.name}, {labels[p.x]}: {_short(p.y)}")
            bars.append(tag("rect", hint, x=x + 1, y=y, width=width - 2, height=frame.y(frame.low) - y, class_="bar"))
        drawn.append(tag("g", *bars, class_=f"s{one.color}"))
    return join([_svg(frame, drawn), _legend(series, marks=False)])


def histogram(frame: Frame, edges: Sequence[float], counts: Sequence[int], lines: Sequence[tuple[str, float]]) -> Html:
    """Draw counts between `edges` (one more than counts), with named vertical `lines` (thresholds)."""
    span = (edges[-1] - edges[0]) or 1.0

    def x_of(value: float) -> float:
        return LEFT + (min(max(value, edges[0]), edges[-1]) - edges[0]) / span * (frame.end - LEFT)

    drawn = [_axes(frame, [])]
    bars = []
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        y = frame.y(count)
        hint = tag("title", f"{_short(low)} to {_short(high)}: {count:,} rows")
        width = max(x_of(high) - x_of(low) - 0.5, 0.5)
        bars.append(tag("rect", hint, x=x_of(low), y=y, width=width, height=frame.y(frame.low) - y, class_="bar"))
    drawn.append(tag("g", *bars, class_="s0"))
    for value in nice_ticks(edges[0], edges[-1]):
        if edges[0] <= value <= edges[-1]:
            drawn.append(_text(_short(value), x_of(value), HEIGHT - BOTTOM + 18, "middle"))
    for number, (name, value) in enumerate(lines):
        x, room = x_of(value), LETTER * len(name) + 5
        # names point away from the lines on their right, where there is room
        left = x > room and (x > WIDTH * 0.7 or value < max(v for _, v in lines) or x + room > WIDTH)
        drawn.append(tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="threshold"))
        drawn.append(_text(name, x + (-5 if left else 5), TOP + 12 + 16 * number, "end" if left else "start"))
    return _svg(frame, drawn)


def mini_line(
    frame: Frame, values: Sequence[float], bands: tuple[Sequence[float], Sequence[float]], ends: tuple[str, str]
) -> Html:
    """Draw one small line with its band over equal steps named at both `ends`, on the scale that its neighbours share."""
    width, height, top, bottom, left, right = 240.0, 170.0, 44.0, 40.0, 54.0, 12.0

    def place(i: int, value: float) -> str:
        x = left + i * (width - left - right) / max(len(values) - 1, 1)
        share = (value - frame.low) / ((frame.high - frame.low) or 1.0)
        return f"{x:.1f},{height - bottom - min(max(share, 0.0), 1.0) * (height - top - bottom):.1f}"

    low, high = bands
    band = [place(i, v) for i, v in enumerate(low)] + [place(i, high[i]) for i in reversed(range(len(high)))]
    base = height - bottom
    drawn = [
        tag("line", x1=left, x2=width - right, y1=base, y2=base, class_="axis"),
        tag("line", x1=left, x2=left, y1=top, y2=base, class_="axis"),
        tag("polygon", points=" ".join(band), class_="band"),
        tag("polyline", points=" ".join(place(i, v) for i, v in enumerate(values)), class_="path"),
        _text(_short(frame.high), left - 5, top + 8, "end"),
        _text(_short(frame.low), left - 5, base, "end"),
        _text(ends[0], left, base + 14, "start"),
        _text(ends[1], width - right, base + 14, "end"),
    ]
    return _svg(frame, drawn, (width, height), "mini s0")


def fit(text: str, room: float, letter: float = LETTER) -> str:
    """Return a text, or what fits of it into `room` units, with "…" at its end."""
    most = max(1, int(room / letter))
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from at most `low` to at least `high`: steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or abs(high) or 1.0
    rough = span / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _svg(frame: Frame, drawn: list[Html], size: tuple[float, float] = (WIDTH, HEIGHT), kind: str = "chart") -> Html:
    """Return the drawing under its title, with the axes' names: the vertical one's above it, the other's below."""
    width, height = size
    return tag(
        "svg",
        tag("title", frame.title),
        tag("desc", frame.description),
        *drawn,
        _text(fit(frame.title, width, BOLD), 0, 15, "start", "heading"),
        _text(fit(frame.y_label, width), 0, 34, "start", "label y"),
        _text(fit(frame.x_label, width), width / 2, height - 8, "middle", "label x"),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_=kind,
        aria_label=f"{frame.title}. {frame.description}",
    )


def _axes(frame: Frame, labels: Sequence[str]) -> Html:
    parts = []
    for value in nice_ticks(frame.low, frame.high):
        if frame.low <= value <= frame.high:
            y = frame.y(value)
            parts.append(tag("line", x1=LEFT, x2=frame.end, y1=y, y2=y, class_="grid"))
            parts.append(_text(_short(value), LEFT - 8, y + 4, "end"))
    slot = (frame.end - LEFT) / max(len(labels), 1)
    # where even four letters do not fit, not every place has its name
    every = math.ceil(4 * LETTER / slot)
    for i, label in enumerate(labels):
        if i % every == 0:
            shown = _text(fit(label, slot * every), LEFT + slot * (i + 0.5), HEIGHT - BOTTOM + 18, "middle")
            parts.append(shown)
    base = HEIGHT - BOTTOM
    parts.append(tag("line", x1=LEFT, x2=frame.end, y1=base, y2=base, class_="axis"))
    return join(parts)


def _whisker(frame: Frame, x: float, p: Point) -> Html:
    if p.low == p.high:
        return Html("")
    low, high = frame.y(p.low), frame.y(p.high)
    path = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
    return tag("path", d=path, class_="whisker")


def _marker(number: int, x: float, y: float, hint: str) -> Html:
    outline = ((0, -6, 6, 5, -6, 5), (-5, -5, 5, -5, 5, 5, -5, 5), (0, -7, 6, 0, 0, 7, -6, 0))
    if number % 4 == 0:
        return tag("circle", tag("title", hint), cx=x, cy=y, r=5.0, class_="mark")
    shape = outline[number % 4 - 1]
    points = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in zip(shape[::2], shape[1::2], strict=True))
    return tag("polygon", tag("title", hint), points=points, class_="mark")


def _legend(series: Sequence[Series], marks: bool) -> Html:
    entries = []
    for number, one in enumerate(series):
        mark = _marker(number, 8, 8, one.name) if marks else tag("rect", x=2, y=2, width=12, height=12, class_="bar")
        sign = tag("svg", mark, viewBox="0 0 16 16", class_=f"key s{one.color}", aria_hidden="true")
        entries.append(tag("li", sign, one.name))
    return tag("ul", *entries, class_="legend")


def _text(text: str, x: float, y: float, anchor: str, kind: str = "tick") -> Html:
    return tag("text", esc(text), x=float(x), y=float(y), text_anchor=anchor, class_=kind)


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.1e}"
