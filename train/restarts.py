"""Where a training went on after a worker, a node or the driver was lost: from which state, and what was done again.

`OUT/restarts.jsonl` has a row for each; its report and the terminal count them. One that was cut off before its first step
is not among them: nothing was lost.
"""

from typing import Any

from ..store.facts import read_lines
from ..store.files import append_line, exists, join

FILE = "restarts.jsonl"


def note(out: str, first: int, rows: list[dict[str, Any]]) -> None:
    """Note that a training goes on after step `first`, where its log has these rows."""
    if rows:
        append_line(join(out, FILE), {"from": first, "again": sum(row["step"] > first for row in rows)})


def read(out: str) -> list[tuple[int, int]]:
    """Return of each restart the step after which it went on, and how many steps were done again."""
    path = join(out, FILE)
    if not exists(path):
        return []
    rows = read_lines(path, "restart of a training", "Delete it.", **{"from": int, "again": int})
    return [(row["from"], row["again"]) for row in rows]


def told(restarts: list[tuple[int, int]]) -> str:
    """Return what to say of a training's restarts; "" of none."""
    if not restarts:
        return ""
    times = "once" if len(restarts) == 1 else f"{len(restarts)} times"
    steps = sum(again for _, again in restarts)
    places = ", ".join(f"{step:,}" for step, _ in restarts)
    done = f"{steps:,} step{' was' if steps == 1 else 's were'} done again"
    return f"cut off {times} (a worker, a node or the driver was lost): it went on after step {places}; {done}"
