"""`RUN/answer.csv` and `RUN/answer.parquet`: the answer for spreadsheets and for programs, the same rows in both."""

import csv
import io
import math
from typing import Any

import pyarrow as pa

from ...store.files import join, write_bytes
from ...store.tables import write_rows
from .answer import Answer
from .answer_columns import ANSWER, COLUMNS

CSV, PARQUET = "answer.csv", "answer.parquet"
# what makes a spreadsheet take a text for a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_answer(run_dir: str, told: list[Answer]) -> list[str]:
    """Write both files and return their paths.

    Raises:
        WriteError: one cannot be written.
    """
    paths = [join(run_dir, CSV), join(run_dir, PARQUET)]
    write_bytes(paths[0], answer_csv(told).encode())
    write_rows(paths[1], answer_table(told), ANSWER)
    return paths


def answer_table(told: list[Answer]) -> pa.Table:
    """Return the rows as a table; a number that is none (an interval without an end) is null."""
    columns = {c.name: [_plain(c.of(a)) for a in told] for c in COLUMNS}
    return pa.table(columns, schema=ANSWER)


def answer_csv(told: list[Answer]) -> str:
    """Return the rows as CSV: plain numbers, and texts that no spreadsheet takes for a formula."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([c.name for c in COLUMNS])
    writer.writerows([_cell(_plain(c.of(a))) for c in COLUMNS] for a in told)
    return sink.getvalue()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    return value if math.isfinite(value) else None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return repr(int(value)) if isinstance(value, int) else repr(float(value))
