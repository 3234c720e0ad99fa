"""What a run's trials reached: one EVALS table, one summary row a trial, the table for the terminal, the report."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..evaluate.metrics import Majority, majority_baseline
from ..evaluate.statistics import Comparison, Interval, compare, wilson_interval
from ..store.errors import InputError
from ..store.files import exists, join, list_files, read_json
from ..store.tables import EVALS, read_rows, write_rows
from .config import RunConfig
from .sweep import RESULT, Trial

TABLE = "evals.parquet"


@dataclass
class Row:
    """One trial: accuracies 0…1, `interval` Wilson's 95 %, `against_random` at the same budget and seed."""

    name: str
    selector: str
    budget: str
    seed: int
    rows: int
    accuracy: float
    interval: Interval
    by_task: dict[str, float]
    seconds: float
    against_random: Comparison | None = None


@dataclass
class Summary:
    """All trials of a run, dearest last; `majority` is the accuracy of always giving a task's commonest answer."""

    rows: list[Row] = field(default_factory=list)
    majority: Majority | None = None
    questions: int = 0


def collect(out: str, trials: list[Trial]) -> str:
    """Write `RUN/evals.parquet`: every trial's answers, told apart by `run`."""
    tables = [read_rows(join(t.folder, "eval", TABLE), EVALS) for t in trials]
    path = join(out, TABLE)
    write_rows(path, pa.concat_tables(tables), EVALS)
    return path


def summarise(out: str) -> Summary:
    """Read a run's results.

    Raises:
        InputError: the sweep has not finished.
    """
    if not exists(join(out, TABLE)):
        raise InputError(f"{out}: no {TABLE}; the sweep has not finished. Run `vinnow run` or `vinnow demo` again.")
    table = read_rows(join(out, TABLE), EVALS)
    found = [p for p in list_files(join(out, "sweep"), RESULT, recursive=True) if p.count("/") == out_depth(out) + 3]
    results = [read_json(p) for p in found]
    answers = {r["run"]: table.filter(pc.equal(table["run"], r["run"])) for r in results}
    summary = Summary(rows=[_row(r, answers[r["run"]]) for r in results])
    for row, result in zip(summary.rows, results, strict=True):
        for other in results:
            same = (other["selector"], other["budget"], other["seed"]) == ("random", row.budget, row.seed)
            if same and row.selector != "random":
                row.against_random = compare([answers[result["run"]]], [answers[other["run"]]], seed=0)
    summary.rows.sort(key=lambda r: (r.rows, r.selector, r.seed))
    first = answers[results[0]["run"]]
    summary.majority, summary.questions = majority_baseline(first), first.num_rows
    return summary


def out_depth(out: str) -> int:
    """Return how many slashes the absolute path of a run's folder has."""
    from ..store.files import open_fs

    return (out.rstrip("/") if "://" in out else open_fs(out)[1]).count("/")


def _row(result: dict[str, Any], answers: pa.Table) -> Row:
    correct = answers["correct"].to_pylist()
    interval = wilson_interval(sum(correct), len(correct))
    return Row(
        name=result["name"],
        selector=result["selector"],
        budget=result["budget"],
        seed=result["seed"],
        rows=result["rows"],
        accuracy=interval.estimate,
        interval=interval,
        by_task=result["by_task"],
        seconds=result["train_seconds"],
    )


def write_report(config: RunConfig) -> str:
    """Print the table and write `RUN/report.html`."""
    from .terminal import print_summary

    summary = summarise(config.out)
    print_summary(summary)
    return join(config.out, "report.html")
