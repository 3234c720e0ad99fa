"""The headline table in the terminal."""

from rich.table import Table

from .progress import console
from .results import Summary


def print_summary(summary: Summary) -> None:
    """Print accuracy by selector and budget, its interval, and the paired difference to random."""
    assert summary.majority is not None
    tasks = sorted({t for row in summary.rows for t in row.by_task})
    table = Table(title=f"accuracy on {summary.questions} questions (%)")
    for name in ("selector", "budget", "seed", "rows", "accuracy", "95 %", *tasks, "against random", "train s"):
        table.add_column(name, justify="left" if name in ("selector", "against random") else "right")
    majority = [f"{100 * summary.majority.by_task[t]:.1f}" for t in tasks]
    table.add_row("[dim]commonest answer[/]", "", "", "0", f"{100 * summary.majority.overall:.1f}", "", *majority, "", "")
    for row in summary.rows:
        gap = row.against_random
        verdict = f"{100 * gap.difference.estimate:+.1f} [{100 * gap.difference.low:+.1f}, {100 * gap.difference.high:+.1f}] {gap.verdict}" if gap else ""
        table.add_row(
            row.selector,
            row.budget,
            str(row.seed),
            f"{row.rows:,}",
            f"[bold]{100 * row.accuracy:.1f}[/]",
            f"{100 * row.interval.low:.1f}–{100 * row.interval.high:.1f}",
            *(f"{100 * row.by_task.get(t, 0):.1f}" for t in tasks),
            verdict,
            f"{row.seconds:.1f}",
        )
    console.print(table)
