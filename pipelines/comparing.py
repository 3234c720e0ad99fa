"""`vinnow compare`: evaluations beside each other, pair by pair, without a run around them.

A choice is one evaluation, several of them (trainings by other seeds, joined by commas), or a folder with one for each
benchmark: `less/pope`, `less/gqa`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from ..evaluate.clusters import with_clusters
from ..evaluate.config import REPORT, TABLE
from ..evaluate.metrics import accuracy
from ..evaluate.statistics.compare import Comparison, adjusted, compare
from ..evaluate.statistics.levels import spread_of
from ..evaluate.statistics.pairs import read_scores
from ..evaluate.statistics.relative import Relative, relative_performance
from ..pool.reader import Pool
from ..store.arrays import Array
from ..store.errors import InputError
from ..store.files import exists, join, read_json
from ..store.reading import as_kind
from ..store.tables import EVALS, read_rows

AVERAGE = "average"


@dataclass(frozen=True)
class Choice:
    """EVALS tables by benchmark, one per seed; `name`: as it was asked for.

    `hidden`: benchmarks beside them whose answers are hidden, so that there is nothing to compare.
    """

    name: str
    tables: dict[str, list[pa.Table]]
    hidden: tuple[str, ...] = ()


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
        values = table[column].unique().to_pylist()
        if len(values) > 1:
            raise InputError(f"{file!r} holds {len(values)} {column}s; compare takes one evaluation a table.")
    if not table.num_rows:
        raise InputError(f"{file!r} holds no answers.")
    _refuse_hidden(file)
    return table


def _refuse_hidden(file: str) -> None:
    """Refuse the table of a test set whose answers are hidden: its scores are none, and would compare as equal."""
    if _is_hidden(file):
        raise InputError(
            f"{file!r} has no scores: the answers of this test set are hidden, and {file.removesuffix(TABLE) + REPORT!r} "
            "says what to submit. Compare what the benchmark's server says of the submissions."
        )


def _is_hidden(file: str) -> bool:
    report = file.removesuffix(TABLE) + REPORT
    if not file.endswith(TABLE) or not exists(report):
        return False
    told = as_kind(
        read_json(report), dict[str, Any], report, "report of an evaluation", "Delete it and evaluate again."
    )
    metrics = told.get("metrics")
    return isinstance(metrics, dict) and bool(metrics) and metrics.get("value") is None


def read_choice(name: str, pools: Sequence[Pool] = ()) -> Choice:
    """Return a choice's answers; pictures that a table does not know come from the pool of its questions.

    Raises:
        InputError: see `read_evaluation`; its seeds do not hold the same benchmarks.
    """
    tables: dict[str, list[pa.Table]] = {}
    hidden: dict[str, None] = {}
    seeds = [name] if os.path.exists(name) or "://" in name else [p for p in name.split(",") if p]
    if twice := sorted({s for s in seeds if [*map(os.path.realpath, seeds)].count(os.path.realpath(s)) > 1}):
        raise InputError(f"{name!r} names {twice[0]!r} twice: seeds of one choice are trainings of their own.")
    for number, seed in enumerate(seeds):
        places = _benchmarks(seed)
        # of a folder with several: the others can be compared
        silent = [n for n, place in places.items() if len(places) > 1 and _is_hidden(join(place, TABLE))]
        places = {n: place for n, place in places.items() if n not in silent or len(silent) == len(places)}
        hidden |= dict.fromkeys(silent)
        if number and places.keys() != tables.keys():
            raise InputError(
                f"{seed!r} holds {', '.join(sorted(places))}, and the seed before it {', '.join(sorted(tables))}: seeds of "
                "one choice answer the same benchmarks."
            )
        for benchmark, place in places.items():
            tables.setdefault(benchmark, []).append(_with_pictures(read_evaluation(place), pools))
    return Choice(name, tables, tuple(hidden))


def compared(
    names: Sequence[str], seed: int = 0, full: str | None = None, pools: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return one row per choice and benchmark, each against the first choice: score, difference, 95 % interval, p, verdict.

    How much seeds differ is pooled over the choices. `detectable`: what 8 of 10 would have told.
    With `full` rows say what per cent of that model's score they are; several benchmarks have a row of their average.

    Raises:
        InputError: fewer than two, or they did not answer the same questions of the same benchmarks.
    """
    if len(names) < 2:
        raise InputError("compare takes two evaluations or more: the first is what the others are held against.")
    held = [Pool(path) for path in pools]
    choices = [read_choice(name, held) for name in names]
    whole = None if full is None else read_choice(full, held)
    _refuse_other_benchmarks(choices)
    first, *others = choices
    benchmarks = sorted(first.tables)
    # one family: all that stands in the table
    spreads = {b: spread_of([_means(c.tables[b]) for c in choices], matched=False) for b in benchmarks}
    results = iter(
        adjusted([compare(c.tables[b], first.tables[b], seed, spreads[b]) for c in others for b in benchmarks])
    )
    rows = []
    for number, choice in enumerate(choices):
        relative = None if whole is None else relative_performance(choice.tables, whole.tables)
        rows += [_row(choice, b, next(results) if number else None, relative) for b in benchmarks]
        if relative is not None and len(choice.tables) > 1:
            rows.append(_average(choice, relative))
    silent = sorted({name for choice in choices for name in choice.hidden})
    if silent:
        rows[0]["notes"] = [*rows[0]["notes"], f"The answers to {', '.join(silent)} are hidden: not compared."]
    return rows


def render(rows: list[dict[str, Any]]) -> Group:
    """Return the rows as a table for the terminal, and below it what its intervals do not know."""
    several, relative = len({r["benchmark"] for r in rows}) > 1, any(r["relative"] is not None for r in rows)
    sizes = f"{rows[0]['questions']:,} questions about {rows[0]['clusters']:,} pictures"
    table = Table("evaluation", title=f"{'several benchmarks' if several else sizes}, each against the first")
    for name in [
        *["benchmark"] * several,
        "score %",
        "difference",
        "95 %",
        "p",
        "p (Holm)",
        "sees",
        *["of full %"] * relative,
        "",
    ]:
        table.add_column(name, justify="left" if name in ("", "benchmark") else "right", no_wrap=name != "benchmark")
    for row in rows:
        cells = [escape(row["benchmark"])] if several else []
        cells += ["" if row["score"] is None else f"{100 * row['score']:.1f}", *_difference(row)]
        cells += [_relative(row)] if relative else []
        last = row["verdict"] or ("" if row["benchmark"] == AVERAGE else "the first")
        table.add_row(escape(",".join(map(os.path.normpath, row["evaluation"].split(",")))), *cells, last)
    told = dict.fromkeys(note for row in rows for note in row["notes"])
    tests = dict.fromkeys(row["test"] for row in rows if row["test"])
    lines = (
        f"p: {'; '.join(tests)}. Intervals of 95 %: whole pictures, and seeds where there are several.",
        "sees: the smallest difference that would have been told in 8 of 10 cases, in points.",
    )
    return Group(table, *lines, *map(escape, told))


def _means(tables: Sequence[pa.Table]) -> Array:
    return read_scores(tables).scores_SN.mean(1)


def _benchmarks(folder: str) -> dict[str, str]:
    """Return evaluations by benchmark: the folder's own, under "", or those of the folders below it."""
    if folder.endswith(".parquet") or exists(join(folder, TABLE)) or not os.path.isdir(folder):
        return {"": folder}
    below = {n: join(folder, n) for n in sorted(os.listdir(folder)) if exists(join(folder, n, TABLE))}
    return below or {"": folder}


def _with_pictures(table: pa.Table, pools: Sequence[Pool]) -> pa.Table:
    samples = set(table["sample"].to_pylist())
    for pool in pools:
        if samples <= {str(i) for i in pool.ids().tolist()}:
            return with_clusters(table, pool)
    return table


def _refuse_other_benchmarks(choices: list[Choice]) -> None:
    first = choices[0]
    for choice in choices[1:]:
        if choice.tables.keys() != first.tables.keys():
            alone = sorted(choice.tables.keys() ^ first.tables.keys())
            raise InputError(
                f"{choice.name!r} and {first.name!r} hold other benchmarks: {', '.join(map(repr, alone))}."
            )
        for benchmark, tables in choice.tables.items():
            rules = sorted({t["benchmark"][0].as_py() for t in [*tables, *first.tables[benchmark]]})
            if len(rules) > 1:
                raise InputError(f"these are of several benchmarks ({', '.join(rules)}): their scores are no pairs.")


def _row(choice: Choice, benchmark: str, result: Comparison | None, relative: Relative | None) -> dict[str, Any]:
    scores = read_scores(choice.tables[benchmark])
    keys = {k for k in scores.keys[0] if k is not None}
    alone = int(np.sum([k is None for k in scores.keys[0]]))
    row: dict[str, Any] = {
        "evaluation": choice.name,
        "benchmark": benchmark or scores.benchmark,
        "questions": len(scores.names_N),
        "clusters": len(keys) + alone if result is None else result.clusters,
        "seeds": len(scores.scores_SN),
        "score": float(scores.mean_N.mean()),
        "accuracy": float(np.mean([accuracy(t).overall for t in choice.tables[benchmark]])),
    }
    row |= dict.fromkeys(
        ("difference", "low", "high", "p", "p_adjusted", "comparisons", "test", "verdict", "detectable")
    )
    row |= {"relative": None, "relative_low": None, "relative_high": None, "notes": []}
    if result is not None:
        low, high = _bounds(result.difference)
        row |= {"difference": result.difference.estimate, "low": low, "high": high, "p": result.p, "test": result.test}
        row |= {"p_adjusted": result.p_adjusted, "comparisons": result.comparisons, "verdict": result.verdict}
        row["detectable"] = result.detectable
        row["notes"] = result.notes
    if relative is not None:
        row["relative"], row["notes"] = relative.by_benchmark[benchmark], [*row["notes"], *relative.notes]
        if len(choice.tables) == 1:
            row["relative_low"], row["relative_high"] = _bounds(relative.average)
    return row


def _average(choice: Choice, relative: Relative) -> dict[str, Any]:
    low, high = _bounds(relative.average)
    row = dict.fromkeys(
        ("questions", "clusters", "score", "accuracy", "difference", "low", "high", "p", "p_adjusted", "comparisons")
    )
    row |= {"evaluation": choice.name, "benchmark": AVERAGE, "seeds": len(next(iter(choice.tables.values())))}
    row |= {"test": None, "verdict": None, "detectable": None, "notes": relative.notes}
    return row | {"relative": relative.average.estimate, "relative_low": low, "relative_high": high}


def _bounds(interval: Any) -> tuple[float | None, float | None]:
    return (interval.low, interval.high) if interval.bounded else (None, None)


def _difference(row: dict[str, Any]) -> list[str]:
    if row["difference"] is None:
        return [""] * 5
    span = "no interval" if row["low"] is None else f"{100 * row['low']:+.1f} … {100 * row['high']:+.1f}"
    sees = "" if row["detectable"] is None else f"{100 * row['detectable']:.1f}"
    return [f"{100 * row['difference']:+.1f}", span, f"{row['p']:.3g}", f"{row['p_adjusted']:.3g}", sees]


def _relative(row: dict[str, Any]) -> str:
    if row["relative"] is None:
        return ""
    span = "" if row["relative_low"] is None else f" [{row['relative_low']:.1f}, {row['relative_high']:.1f}]"
    return f"{row['relative']:.1f}{span}"
