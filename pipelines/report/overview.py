"""The top of a report: what the run says of its question, and its numbers at a glance."""

from typing import Any

from .data import ReportData
from .headline import Row, findings


def overview(data: ReportData, rows: list[Row]) -> dict[str, Any]:
    """Return the answer in sentences (without one, what the headline shows), and numbers by name."""
    return {"answer": data.answer or findings(rows, data), "numbers": _numbers(data, rows)}


def _numbers(data: ReportData, rows: list[Row]) -> dict[str, str]:
    numbers: dict[str, str] = {}
    if data.explored is not None:
        numbers["rows in the pool"] = f"{data.explored.rows:,}"
    if data.refused:
        numbers["refused rows"] = f"{sum(table.num_rows for table in data.refused.values()):,}"
    if data.explored is not None and data.explored.choices:
        choices = data.explored.choices
        for what, values in (
            ("selectors", {c[0] for c in choices}),
            ("budgets", {c[1] for c in choices}),
            ("seeds", {c[2] for c in choices}),
        ):
            numbers[what] = str(len(values))
    if data.trials:
        numbers |= {"fine-tunes": f"{len(data.trials):,}", "questions each": f"{rows[0].questions:,}"}
    hours = {name: value for name, value in data.facts.items() if name in ("GPU-hours", "CPU-hours")}
    return numbers | {name: value.split(" (")[0] for name, value in hours.items()}
