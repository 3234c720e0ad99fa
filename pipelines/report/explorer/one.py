"""One record of a run, whole, with every score and rank, and the choices that took it: what a page held no room for."""

from typing import Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from ....pool.reader import Pool
from ....store.errors import InputError
from ....store.files import exists, join
from ....store.reading import shown
from ...runs.config import parsed, saved_run
from ..gather import read_picks, results_of
from ..markup import clean
from .gathering import read_chosen


def record_of(run_dir: str, sample_id: str) -> dict[str, Any]:
    """Return a record's turns and pictures, its score and rank by each selector, and which choices took it.

    Raises:
        InputError: the run has no pool, or the id is no number.
        MissingRowsError: the pool has no such row.
    """
    if not sample_id.isdecimal() or int(sample_id) >= 1 << 64:
        raise InputError(f"a record's id is a whole number of 64 bits, not {shown(sample_id)}.")
    pool = Pool(join(run_dir, "pool"))
    (record,) = pool.take(np.array([int(sample_id)], np.uint64))
    config = parsed(saved_run(run_dir), run_dir) if exists(join(run_dir, "run.json")) else None
    chosen = read_chosen(run_dir, pool, config, read_picks(run_dir, config, results_of(run_dir, config)))
    (row,) = chosen.finder.rows(np.array([record.sample_id], np.uint64), "the record")
    scores = [
        {
            "selector": s.name,
            "score": None if np.isnan(s.best_N[row]) else float(s.best_N[row]),
            "rank": int(s.rank_N[row]) or None,
            "of": len(s.order_K),
        }
        for s in chosen.scored
    ]
    choices = [
        {"choice": c.name, "rows": len(c.rows_K), "taken": bool((c.rows_K == row).any())} for c in chosen.choices
    ]
    facts = {"sample_id": str(record.sample_id), "source": record.source, "task": record.task}
    rest = {"images": list(record.images), "conversations": record.conversations, "extra": record.extra}
    return facts | rest | {"scores": scores, "choices": choices}


def rendered(record: dict[str, Any]) -> Group:
    """Return the same for a terminal."""
    head = [f"{name}: {record[name]}" for name in ("sample_id", "source", "task")]
    lines = [*head, f"images: {', '.join(record['images']) or 'none'}", ""]
    lines += [f"{turn['from']}: {turn['value']}" for turn in record["conversations"]]
    scores = Table(title="Scores (higher is better)", title_justify="left", box=None)
    for name in ("selector", "score", "rank"):
        scores.add_column(name)
    for s in record["scores"]:
        known = (f"{s['score']:.6g}", f"{s['rank']:,} of {s['of']:,}") if s["rank"] else ("–", "–")
        scores.add_row(escape(s["selector"]), *known)
    choices = Table(title="Choices", title_justify="left", box=None)
    for name in ("choice", "rows", ""):
        choices.add_column(name)
    for c in record["choices"]:
        choices.add_row(escape(c["choice"]), f"{c['rows']:,}", "taken" if c["taken"] else "passed over")
    # a terminal obeys control characters
    return Group(escape(clean("\n".join(lines))), "", scores, choices)
