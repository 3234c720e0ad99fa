"""The answer in the report: the tables of costs, and the Pareto front; and how its numbers are shown."""

from typing import Any

from .answer import Answer, answers
from .charts import Frame, Spot, colors, scatter_chart
from .data import FULL, RANDOM, ReportData
from .headline import Row, minus, percent
from .markup import Cell, Table

NEVER = "never"


def cost_section(data: ReportData, rows: list[Row]) -> dict[str, Any] | None:
    """What each choice cost, whether it pays, and which ones nothing beats in both."""
    told = answers(rows, data)
    if data.costs is None or not any(a.price.training is not None for a in told):
        return None
    return {"tables": [_parts(told, data), _worth(told)], "pareto": _pareto(told, data), "notes": cost_notes(data)}


def cost_notes(data: ReportData) -> list[str]:
    """Return what there is to know of the costs."""
    return data.costs.notes if data.costs else []


def unit(data: ReportData) -> str:
    """Return what costs are counted in."""
    return f"{data.costs.device}-seconds" if data.costs and data.costs.device else "device-seconds"


def seconds(value: float | None) -> str:
    """Return seconds as they are shown; "?" where they are not known."""
    if value is None:
        return "?"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def c_of(told: Answer) -> str:
    """Return C with its interval: `0.34 [0.31, 0.38]`."""
    if told.c is None:
        return ""
    if not told.c.bounded:
        return f"{told.c.estimate:.2f}"
    return f"{told.c.estimate:.2f} [{told.c.low:.2f},\u00a0{told.c.high:.2f}]"


def even_of(told: Answer) -> str:
    """Return up to how many rows it pays; "never", or nothing where that is not known."""
    if told.row.selector == FULL or not _knows(told):
        return ""
    return NEVER if told.break_even is None else f"{told.break_even:,}"


def reuses_of(told: Answer) -> str:
    """Return after how many trainings choosing is paid; "never", or nothing where that is not known."""
    if told.row.selector == FULL or not _knows(told):
        return ""
    return NEVER if told.reuses is None else f"{told.reuses:,}"


def sees_of(row: Row) -> str:
    """Return the smallest difference to random that would have been told, in points; nothing where there is none."""
    told = row.against_random.detectable if row.against_random else None
    return "" if told is None else f"{100 * told:.1f}"


def _knows(told: Answer) -> bool:
    return told.price.whole is not None and told.full is not None


def _parts(told: list[Answer], data: ReportData) -> Table:
    names = ("training", "features", "targets", "scoring", "picking")
    head = ["selector", "budget", "proxy", "features", "targets", "scoring", "picking", "T_sel", "T_sel, shared"]
    head += ["T_sub", "answering", "T_sel + T_sub", "MB read"]
    lines: list[list[Any]] = []
    for a in told:
        price = a.price
        spent = [seconds(price.parts.get(n)) for n in names] if a.row.selector not in (RANDOM, FULL) else ["–"] * 5
        lines.append(
            [
                a.row.name,
                a.row.budget,
                *spent,
                seconds(price.alone),
                seconds(price.split),
                seconds(price.training),
                seconds(price.answering),
                Cell(seconds(price.whole)),
                "?" if price.reads is None else f"{price.reads / 1e6:,.1f}",
            ]
        )
    return Table(f"What each choice cost, in {unit(data)}", head, lines, set(range(2, len(head))))


def _worth(told: list[Answer]) -> Table:
    head = [
        "selector",
        "budget",
        "accuracy %",
        "of the full cost",
        "C",
        "95 %",
        "pays up to (rows)",
        "paid after (uses)",
    ]
    head += ["Pareto front"]
    lines: list[list[Any]] = []
    for a in told:
        span = "" if a.c is None or not a.c.bounded else f"{a.c.low:.2f} – {a.c.high:.2f}"
        front = "on it" if a.on_front else f"behind {a.dominated_by}" if a.dominated_by else "?"
        lines.append(
            [
                a.row.name,
                a.row.budget,
                percent(a.row.accuracy.estimate),
                "" if a.of_full is None else f"{a.of_full:.2f}",
                "" if a.c is None else Cell(f"{a.c.estimate:.2f}"),
                span,
                even_of(a),
                reuses_of(a),
                front,
            ]
        )
    return Table("Whether it pays, beside training on everything", head, lines, set(range(2, len(head) - 1)))


def _pareto(told: list[Answer], data: ReportData) -> dict[str, Any] | None:
    """The choices by what they cost and reach, the front marked."""
    drawn = [a for a in told if a.price.whole is not None]
    if len(drawn) < 2:
        return None
    spots = []
    palette = colors([a.row.name for a in drawn])
    for a in drawn:
        share = a.row.accuracy
        spots.append(
            Spot(
                a.row.name,
                palette[a.row.name],
                a.price.whole or 0.0,
                (100 * share.estimate, 100 * share.low, 100 * share.high),
                a.name,
                a.on_front,
            )
        )
    heights = [v for s in spots for v in s.y]
    pad = max(1.0, 0.06 * (max(heights) - min(heights)))
    words = "; ".join(f"{s.label}: {s.x:,.3g} and {s.y[0]:.1f} %{' (front)' if s.front else ''}" for s in spots)
    frame = Frame(
        "chart-pareto",
        "Cost and accuracy of every choice",
        words,
        f"T_sel + T_sub ({unit(data)})",
        "accuracy (% of the questions)",
        max(0.0, min(heights) - pad),
        max(heights) + pad,
    )
    behind = [f"{a.name} (by {a.dominated_by})" for a in drawn if not a.on_front]
    caption = (
        "Whiskers: 95 % interval of each accuracy. Full marks are the front: nothing costs no more and reaches more."
    )
    if behind:
        caption += f" Dominated, by the estimates alone: {minus('; '.join(behind))}."
    return {"chart": scatter_chart(frame, spots), "caption": caption}
