"""`vinnow compare`: evaluations of one test pool beside each other, pair by pair, without a run around them."""

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.markup import escape
from rich.table import Table

from ..evaluate.config import TABLE
from ..evaluate.metrics import accuracy
from ..evaluate.statistics import Comparison, compare
from ..store.errors import InputError
from ..store.files import exists, join
from ..store.tables import EVALS, read_rows


def read_evaluation(path: str) -> pa.Table:
    """Return the EVALS table of an evaluation's folder or file, of one run and one benchmark.

    Raises:
        InputError: there is none, or it holds several.
    """
    file = path if path.endswith(".parquet") else join(path, TABLE)
    if not exists(file):
        raise InputError(f"no evaluation at {path!r}: there is no {file!r}. Make one with `vinnow evaluate`.")
    table = read_rows(file, EVALS)
    for column in ("run", "benchmark"):
        names = table[column].unique().to_pylist()
        if len(names) > 1:
            raise InputError(f"{file!r} holds {len(names)} {column}s; compare takes one evaluation a table.")
    if not table.num_rows:
        raise InputError(f"{file!r} holds no answers.")
    return table


def compared(paths: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Return a row an evaluation, each against the first: accuracy, difference with its 95 % interval, p, verdict.

    Raises:
        InputError: fewer than two, or they did not answer the same questions of one benchmark.
    """
    if len(paths) < 2:
        raise InputError("compare takes two evaluations or more: the first is what the others are held against.")
    tables = [read_evaluation(p) for p in paths]
    benchmarks = {t["benchmark"][0].as_py() for t in tables}
    if len(benchmarks) > 1:
        raise InputError(
            f"these are of several benchmarks ({', '.join(sorted(benchmarks))}): their scores are no pairs."
        )
    rows = []
    for path, table in zip(paths, tables, strict=True):
        comparison = None if table is tables[0] else compare([table], [tables[0]], seed)
        rows.append(
            {"evaluation": path, "questions": table.num_rows, "accuracy": accuracy(table).overall}
            | _against(comparison)
        )
    return rows


def render(rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a table for the terminal."""
    table = Table("evaluation", title=f"{rows[0]['questions']:,} questions, each against the first")
    for name in ("accuracy %", "difference", "95 %", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        shown = [f"{100 * row['accuracy']:.1f}", "", "", "", "the first"]
        if row["verdict"]:
            span = f"{100 * row['low']:+.1f} … {100 * row['high']:+.1f}"
            shown[1:] = [f"{100 * row['difference']:+.1f}", span, f"{row['p']:.3g}", row["verdict"]]
        table.add_row(escape(os.path.normpath(row["evaluation"])), *shown)
    return table


def _against(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return dict.fromkeys(("difference", "low", "high", "p", "verdict"))
    span, p, verdict = comparison.difference, comparison.p, comparison.verdict
    return {"difference": span.estimate, "low": span.low, "high": span.high, "p": p, "verdict": verdict}
