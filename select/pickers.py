"""Shared pickers: allocation and tie rules, once. All are vectorised; 665K rows take well under a second.

Axes: N rows, G groups. Ties go to the smaller sample_id everywhere; budgets are met exactly.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from ..store.errors import InputError
from ..store.tables import PICKS, conform

Array = np.ndarray[Any, Any]


def check_budget(budget: int, rows: int) -> None:
    """Refuse a budget that the rows cannot meet."""
    if budget < 1:
        raise InputError(f"a budget of {budget} rows picks nothing; give at least 1.")
    if budget > rows:
        raise InputError(f"a budget of {budget} rows is above the pool's {rows}; the whole pool is {rows}.")


def best_first(ids: Array, score: Array) -> Array:
    """Return positions [N] by score descending, then id ascending."""
    return np.lexsort((ids, -score))


def top_k(ids: Array, score: Array, budget: int) -> Array:
    """Return the positions of the best `budget` rows, best first."""
    check_budget(budget, len(ids))
    return best_first(ids, score)[:budget]


def proportional(sizes: Array, budget: int) -> Array:
    """Split a budget over groups by their sizes [G]: largest remainders, ties to the earlier group."""
    check_budget(budget, int(sizes.sum()))
    exact = sizes * (budget / sizes.sum())
    quota = np.floor(exact).astype(np.int64)
    order = np.lexsort((np.arange(len(sizes)), -(exact - quota)))
    quota[order[: budget - int(quota.sum())]] += 1
    return quota


def water_fill(sizes: Array, budget: int) -> Array:
    """Split a budget evenly over groups, small ones whole: quota = min(size, τ) with Σ = budget; leftovers to the largest.

    XMAS's allocation (spec: XMAS §6): smallest group first, each gets its even share of what is left.
    """
    check_budget(budget, int(sizes.sum()))
    quota = np.zeros(len(sizes), np.int64)
    order = np.lexsort((np.arange(len(sizes)), sizes))
    left = budget
    for j, g in enumerate(order):
        quota[g] = min(int(sizes[g]), left // (len(order) - j))
        left -= int(quota[g])
    return quota


def per_group(ids: Array, score: Array, group: Array, quota: dict[int, int]) -> Array:
    """Return the positions of each group's best rows, as many as its quota; best first over all groups."""
    order = np.lexsort((ids, -score, group))
    ranked = group[order]
    starts = np.searchsorted(ranked, ranked, side="left")
    rank = np.arange(len(order)) - starts
    allowed = np.array([quota.get(int(g), 0) for g in np.unique(ranked)])
    take = rank < allowed[np.searchsorted(np.unique(ranked), ranked)]
    chosen = order[take]
    return chosen[best_first(ids[chosen], score[chosen])]


def weighted(ids: Array, weight: Array, budget: int, seed: int) -> Array:
    """Draw `budget` rows without replacement, chances by weight (≥ 0) [N]; independent of row order (Efraimidis-Spirakis)."""
    check_budget(budget, int((weight > 0).sum()))
    with np.errstate(divide="ignore"):
        key = np.where(weight > 0, np.log(uniform(ids, seed)) / np.where(weight > 0, weight, 1), -np.inf)
    return top_k(ids, key, budget)


def votes(ids: Array, scores_NT: Array, budget: int, share: float) -> tuple[Array, Array]:
    """ICONS's consensus: a target votes for its best `share` of rows; most votes win, ties by mean rank, then id.

    Returns the positions of the best `budget` rows and each row's votes [N].
    """
    check_budget(budget, len(ids))
    n, targets = scores_NT.shape
    quota = max(1, int(n * share))
    count, ranks = np.zeros(n), np.zeros(n)
    for t in range(targets):
        order = best_first(ids, scores_NT[:, t])
        rank = np.empty(n)
        rank[order] = np.arange(n)
        ranks += rank / targets
        count += rank < quota
    return np.lexsort((ids, ranks, -count))[:budget], count


def uniform(ids: Array, seed: int) -> Array:
    """Return a number in (0, 1) for each id: a hash of (id, seed), so that order and parts do not matter."""
    x = ids.astype(np.uint64) ^ np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):  # splitmix64's finaliser
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


def picks_table(ids: Array, group: Array, score: Array, selector: str, run: tuple[int, int]) -> pa.Table:
    """Return PICKS for chosen rows, best first; `run` is (budget, seed)."""
    n, (budget, seed) = len(ids), run
    columns = {
        "sample_id": pa.array(ids.astype(np.uint64)),
        "rank": pa.array(np.arange(n)),
        "group": pa.array(group.astype(np.int64)),
        "score": pa.array(score.astype(np.float64)),
        "selector": pa.array([selector] * n, pa.string()),
        "budget": pa.array(np.full(n, budget)),
        "seed": pa.array(np.full(n, seed)),
    }
    return conform(pa.table(columns), PICKS, "picks")


def scores_table(ids: Array, target: Any, group: Array, score: Array) -> pa.Table:
    """Return SCORES; `target` is one name, or an array of names [N]."""
    names = pa.array([target] * len(ids) if isinstance(target, str) else list(target), pa.string())
    return pa.table(
        {
            "sample_id": pa.array(ids.astype(np.uint64)),
            "target": names,
            "group": pa.array(group.astype(np.int64)),
            "score": pa.array(score.astype(np.float64)),
        }
    )


def columns_of(scores: pa.Table) -> tuple[Array, Array, Array]:
    """Return (ids, group, score) of a SCORES table."""
    return tuple(scores[n].to_numpy() for n in ("sample_id", "group", "score"))  # type: ignore[return-value]
