"""What a report shows of scores and picks: pure functions over tables and a View.

Axes: T checkpoints.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..store.errors import MissingRowsError
from .rows import columns_of
from .view import Array, View


@dataclass(frozen=True)
class Cluster:
    """One cluster: rows, mean trajectory over `steps` [T] (sums of singular values), rows by source."""

    group: int
    rows: int
    steps: list[int]
    mean: list[float]
    sources: dict[str, int]


def by_column(picks: pa.Table, view: View, column: str) -> dict[str, int]:
    """Count the picked rows by a pool column's values, the commonest first."""
    at = _places(picks["sample_id"].to_numpy(), view)
    return _counts(view.column(column)[at])


def by_task(picks: pa.Table, view: View) -> dict[str, int]:
    """Count the picked rows by task, the commonest first."""
    return by_column(picks, view, "task")


def without_gradient(notes: dict[str, Any], rows: int) -> str:
    """Say how many of a pool's rows have no gradient, by what a method left with its scores; "" where all have one."""
    found = notes.get("zero_rows", {})
    zero = {int(step): n for step, n in (found if isinstance(found, dict) else {0: found}).items()}
    if not any(zero.values()):
        return ""
    by_step = ", ".join(f"{step}: {n:,}" for step, n in sorted(zero.items()))
    at = "" if len(set(zero.values())) == 1 else f" (by checkpoint: {by_step})"
    return (
        f"{max(zero.values()):,} of {rows:,} rows have no gradient and score 0{at}: text-only rows have none in the "
        "projector. Features of more modules (which: lora) give them one."
    )


def overlap(picks_a: pa.Table, picks_b: pa.Table) -> float:
    """Return the share of the smaller set of picks that is in the other one too."""
    a, b = picks_a["sample_id"].to_numpy(), picks_b["sample_id"].to_numpy()
    return len(np.intersect1d(a, b)) / min(len(a), len(b))


def trajectory_clusters(view: View, scores: pa.Table, k: int = 8) -> list[Cluster]:
    """Return the `k` largest clusters of XMAS's scores (text-only rows, group -1, aside).

    `view` must declare "trajectory"; the store is streamed once.
    """
    ids, group, _ = columns_of(scores)
    group_N = np.full(len(view.ids), -1)
    group_N[_places(ids, view)] = group
    sizes = np.bincount(group_N[group_N >= 0])
    steps = view.steps("trajectory")
    sums_TG = np.zeros((len(steps), len(sizes)))
    for t, step in enumerate(steps):
        for batch in view.scan("trajectory", step):
            here = group_N[batch.positions]
            known = here >= 0
            sums_TG[t] += np.bincount(here[known], batch.vec.sum(1, dtype=float)[known], len(sizes))
    largest = np.argsort(-sizes, kind="stable")[:k]
    source = view.column("source")
    return [
        Cluster(int(g), int(sizes[g]), steps, (sums_TG[:, g] / sizes[g]).tolist(), _counts(source[group_N == g]))
        for g in largest
        if sizes[g]
    ]


def score_histogram(scores: pa.Table, picks: pa.Table, bins: int = 40) -> tuple[Array, Array, Array]:
    """Return (edges [bins + 1], rows [bins], picked rows [bins]) of scores with one row a sample."""
    ids, _, score = columns_of(scores)
    edges = np.histogram_bin_edges(score, bins)
    picked = score[np.isin(ids, picks["sample_id"].to_numpy())]
    return edges, np.histogram(score, edges)[0], np.histogram(picked, edges)[0]


def _places(ids: Array, view: View) -> Array:
    at = np.minimum(np.searchsorted(view.ids, ids), max(len(view.ids) - 1, 0))
    known = view.ids[at] == ids if len(view.ids) else np.zeros(len(ids), bool)
    if not known.all():
        raise MissingRowsError(f"{int(known.sum())} of {len(ids)} rows are in this pool: these are another pool's.")
    return at


def _counts(values: Array) -> dict[str, int]:
    counted = Counter(values.tolist())
    return {str(v): n for v, n in sorted(counted.items(), key=lambda pair: (-pair[1], str(pair[0])))}
