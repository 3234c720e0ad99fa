"""The headline in the terminal: the same rows as the report's, in tables that fit 80 columns."""

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from .answer import Answer, answers, sentence
from .answer_shown import c_of, cost_notes, even_of, reuses_of, seconds, sees_of, unit
from .data import ReportData
from .headline import Row, adjusted_p, caveats, findings, headline, of_whole, percent, signed

STYLES = {"better": "green", "worse": "red"}
COMMONEST = "commonest answer"
# choices that a table of the terminal holds; the files hold all
MOST = 200


def headline_table(data: ReportData, rows: list[Row] | None = None) -> Group:
    """Return what every choice reached and cost: the answer in a sentence, accuracy against random, costs, tasks.

    `rows`: the headline, where it is worked out already.

    Raises:
        InputError: two trials answered different test samples.
    """
    rows = headline(data.trials) if rows is None else rows
    if not rows:
        return Group("No fine-tune has been evaluated yet.", *(f"• {escape(line)}" for line in data.sweep))
    told = answers(rows, data)
    answer = sentence(told)
    said = [f"• {escape(line)}" for line in findings(rows, data)]
    said += [f"• {escape(line)}" for line in [*caveats(rows), *cost_notes(data)]]
    if len(rows) > MOST:
        said.insert(0, f"• The tables show {MOST} of {len(rows):,} choices; answer.csv has all.")
        rows, told = rows[:MOST], told[:MOST]
    priced = any(a.price.training is not None for a in told)
    tables = [_choices(rows, data), *([_costs(told, data)] if priced else []), _by_task(rows, data)]
    return Group(f"[bold]{escape(answer)}[/]", *tables, *said)


def _choices(rows: list[Row], data: ReportData) -> Table:
    seeds = {r.seeds for r in rows}
    alike = f", {rows[0].seeds} seeds each" if len(seeds) == 1 and rows[0].seeds > 1 else ""
    table = _table(f"Accuracy on {rows[0].questions:,} questions (%){alike}")
    for name in ("budget", "acc.", "95 %", "against random", "p", "sees"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", min_width=8)
    if data.majority:
        table.add_row(COMMONEST, "–", percent(data.majority.overall), *[""] * 5, style="dim")
    for r in rows:
        style = STYLES.get(r.against_random.verdict, "dim") if r.against_random else "dim"
        table.add_row(
            escape(r.name),
            escape(r.budget) + (f" ×{r.seeds}" if r.seeds > 1 and not alike else ""),
            f"[bold]{percent(r.accuracy.estimate)}[/]",
            f"{percent(r.accuracy.low)}–{percent(r.accuracy.high)}",
            escape(signed(r)),
            adjusted_p(r),
            sees_of(r),
            f"[{style}]{r.word}[/]" if r.word else "",
        )
    table.caption = "p: adjusted (Holm). sees: the smallest difference that 8 of 10 would tell."
    table.caption_justify = "left"
    return table


def _costs(told: list[Answer], data: ReportData) -> Table:
    table = _table(f"What it cost, in {unit(data)}")
    for name in ("budget", "choose", "train", "of full", "C", "up to", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    for a in told:
        table.add_row(
            escape(a.row.name),
            escape(a.row.budget) + (" *" if a.on_front else "  "),
            seconds(a.price.alone),
            seconds(a.price.training),
            "" if a.of_full is None else f"{a.of_full:.2f}",
            escape(c_of(a)),
            even_of(a),
            reuses_of(a),
        )
    table.caption = (
        "*: Pareto front. C < 1: cheaper for what it reaches than all rows. ?: unknown.\n"
        "up to: rows at which it pays. after: trainings that pay for the choosing."
    )
    table.caption_justify = "left"
    return table


def _by_task(rows: list[Row], data: ReportData) -> Table:
    tasks = sorted({t for r in rows for t in r.by_task})
    table = _table("Rows, seconds of training, and accuracy by task (%)")
    pictured = any(r.pictured is not None for r in rows)
    relative = any(r.relative is not None for r in rows)
    for name in (
        "budget",
        "rows",
        "train s",
        *["of the whole pool"] * relative,
        *tasks,
        *["with a picture"] * pictured,
    ):
        table.add_column(escape(name), justify="right")
    if data.majority:
        table.add_row(
            COMMONEST,
            "–",
            "0",
            "",
            *[""] * relative,
            *(percent(data.majority.by_task.get(t, 0.0)) for t in tasks),
            style="dim",
        )
    for r in rows:
        shares = (percent(r.by_task.get(t, 0.0)) for t in tasks)
        last = [] if r.pictured is None else [percent(r.pictured)]
        whole = [escape(of_whole(r))] if relative else []
        cells = (escape(r.name), escape(r.budget), f"{r.rows:,}", f"{r.seconds:,.1f}")
        table.add_row(*cells, *whole, *shares, *last)
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("selector", overflow="fold", min_width=8)
    return table
