"""The headline in the terminal: the same rows as the report's, in tables that fit 80 columns."""

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from .data import ReportData
from .headline import Row, adjusted_p, caveats, findings, headline, of_whole, percent, signed

STYLES = {"better": "green", "worse": "red"}
COMMONEST = "commonest answer"


def headline_table(data: ReportData) -> Group:
    """Return what every choice reached: accuracy with its interval and against random, then accuracy by task.

    Raises:
        InputError: two trials answered different test samples.
    """
    rows = headline(data.trials)
    if not rows:
        return Group("No fine-tune has been evaluated yet.", *(f"• {escape(line)}" for line in data.sweep))
    said = [f"• {escape(line)}" for line in findings(rows, data)]
    said += [f"• {escape(line)}" for line in caveats(rows)]
    return Group(_choices(rows, data), _by_task(rows, data), *said)


def _choices(rows: list[Row], data: ReportData) -> Table:
    table = _table(f"Accuracy on {rows[0].questions:,} questions (%)")
    for name in ("budget", "rows", "accuracy", "95 %", "against random", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    if data.majority:
        table.add_row(COMMONEST, "–", "0", percent(data.majority.overall), *[""] * 4, style="dim")
    for r in rows:
        style = STYLES.get(r.against_random.verdict, "dim") if r.against_random else "dim"
        table.add_row(
            escape(r.name),
            escape(r.budget) + (f" ×{r.seeds}" if r.seeds > 1 else ""),
            f"{r.rows:,}",
            f"[bold]{percent(r.accuracy.estimate)}[/]",
            f"{percent(r.accuracy.low)}–{percent(r.accuracy.high)}",
            escape(signed(r)),
            adjusted_p(r),
            f"[{style}]{r.word}[/]" if r.word else "",
        )
    return table


def _by_task(rows: list[Row], data: ReportData) -> Table:
    tasks = sorted({t for r in rows for t in r.by_task})
    table = _table("Seconds of training, and accuracy by task (%)")
    pictured = any(r.pictured is not None for r in rows)
    relative = any(r.relative is not None for r in rows)
    for name in ("budget", "train s", *["of the whole pool"] * relative, *tasks, *["with a picture"] * pictured):
        table.add_column(escape(name), justify="right")
    if data.majority:
        table.add_row(
            COMMONEST,
            "–",
            "",
            *[""] * relative,
            *(percent(data.majority.by_task.get(t, 0.0)) for t in tasks),
            style="dim",
        )
    for r in rows:
        shares = (percent(r.by_task.get(t, 0.0)) for t in tasks)
        last = [] if r.pictured is None else [percent(r.pictured)]
        whole = [escape(of_whole(r))] if relative else []
        table.add_row(escape(r.name), escape(r.budget), f"{r.seconds:,.1f}", *whole, *shares, *last)
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("selector", overflow="fold", min_width=8)
    return table
