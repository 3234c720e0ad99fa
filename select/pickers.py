"""Shared pickers: allocation and tie rules, once, and vectorised (665,298 rows take under a second or two).

Axes: N rows, G groups, T targets. Ties go to the smaller sample_id everywhere; budgets are met exactly;
nothing depends on the order in which rows arrive. Scores: higher is better.
"""

import numpy as np

from ..store.arrays import Array
from ..store.errors import InputError
from ..store.files import digest


def check_budget(budget: int, rows: int, what: str = "the pool") -> None:
    """Refuse a budget that the rows cannot meet.

    Raises:
        InputError: it is below 1 or above `rows`.
    """
    if budget < 1:
        raise InputError(f"a budget of {budget} rows picks nothing; give at least 1.")
    if budget > rows:
        raise InputError(f"a budget of {budget} rows is above {what}'s {rows}; give at most {rows}.")


def best_first(ids: Array, score: Array) -> Array:
    """Return positions [N] by score descending, then id ascending."""
    return np.lexsort((ids, -score))


def top_k(ids: Array, score: Array, budget: int) -> Array:
    """Return the positions of the best `budget` rows, best first."""
    check_budget(budget, len(ids))
    return best_first(ids, score)[:budget]


def proportional(sizes: Array, budget: int) -> Array:
    """Split a budget over groups by their sizes [G]: largest remainders, ties to the earlier group."""
    sizes = sizes.astype(np.int64)
    total = int(sizes.sum())
    check_budget(budget, total)
    # integers: with floats a remainder of 0.999… could go to the wrong group
    quota, remainder = np.divmod(sizes * budget, total)
    order = np.argsort(-remainder, kind="stable")
    quota[order[: budget - int(quota.sum())]] += 1
    return quota


def water_fill(sizes: Array, budget: int) -> Array:
    """Split a budget evenly over groups [G]; those smaller than their share are taken whole.

    quota = min(size, τ) with Σ quota = budget; what τ leaves over goes to the largest groups. This is XMAS's
    allocation (its `cluster_data_selection.py`: smallest group first, each may take its even share of what is
    left).
    """
    sizes = sizes.astype(np.int64)
    check_budget(budget, int(sizes.sum()))
    order = np.argsort(sizes, kind="stable")
    ranked = sizes[order]
    groups_left = np.arange(len(sizes), 0, -1)
    share = (budget - (np.cumsum(ranked) - ranked)) // groups_left
    cut = ranked > share
    quota = ranked.copy()
    if cut.any():
        first = int(np.argmax(cut))
        left, groups = budget - int(ranked[:first].sum()), len(sizes) - first
        quota[first:] = left // groups
        quota[len(sizes) - left % groups :] += 1
    out = np.empty_like(quota)
    out[order] = quota
    return out


def per_group(ids: Array, score: Array, group: Array, quota: dict[int, int]) -> Array:
    """Return the positions of each group's best rows, as many as its quota.

    They are interleaved by the groups' quotas, so that any first part of them is about as balanced as the
    whole.

    Raises:
        InputError: a quota is above its group's size.
    """
    order = np.lexsort((ids, -score, group))
    numbers, first, sizes = np.unique(group[order], return_index=True, return_counts=True)
    wanted = np.array([quota.get(int(g), 0) for g in numbers], np.int64)
    if (wanted > sizes).any() or int(wanted.sum()) != sum(quota.values()):
        raise InputError(f"quotas {quota} do not fit groups of {dict(zip(numbers.tolist(), sizes.tolist()))}.")
    place = np.arange(len(order)) - np.repeat(first, sizes)
    allowed = np.repeat(wanted, sizes)
    take = place < allowed
    chosen = order[take]
    return chosen[np.lexsort((ids[chosen], (place[take] + 0.5) / allowed[take]))]


def weighted(ids: Array, weight: Array, budget: int, seed: int) -> Array:
    """Draw `budget` positions without replacement, chances by weight [N] (≥ 0; 0 is never drawn).

    Efraimidis and Spirakis 2006: the largest u^(1/weight), u hashed from the id, so row order does not
    matter.
    """
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise InputError("weights must be finite and not negative.")
    live = np.flatnonzero(weight > 0)
    check_budget(budget, len(live), "the rows with a weight above 0")
    key = np.log(uniform(ids[live], seed, "weighted")) / weight[live]
    return live[top_k(ids[live], key, budget)]


def votes(ids: Array, scores_NT: Array, budget: int, share: float) -> tuple[Array, Array]:
    """Pick by consensus (ICONS): a target votes for the rows at or above its (1 - share) quantile.

    Most votes win; ties go to the better mean rank over targets, then to the smaller id (the published code
    left them to an unstable sort: at 10 targets nearly all of 665K rows are tied). Equal scores share a vote
    and a rank. Returns the positions of the best `budget` rows, and each row's votes [N].
    """
    check_budget(budget, len(ids))
    count, ranks = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    for score_N in scores_NT.T:
        count += score_N >= np.quantile(score_N, 1 - share)
        ranks += _rank(score_N)
    return np.lexsort((ids, ranks, -count))[:budget], count


def uniform(ids: Array, seed: int, salt: str) -> Array:
    """Return a number in (0, 1) for each id: a hash of (id, seed, salt), whatever the order and the shards.

    `salt` keeps methods apart: random and stratified with one seed draw independently. (splitmix64's
    finaliser.)
    """
    base = np.uint64(int(digest(f"{salt}/{seed}"), 16))
    x = ids.astype(np.uint64) ^ base
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


def _rank(score_N: Array) -> Array:
    """Count the rows that are strictly better, for each row."""
    order = np.argsort(-score_N, kind="stable")
    ranked = score_N[order]
    opens = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    rank = np.empty(len(score_N), np.int64)
    rank[order] = np.maximum.accumulate(np.where(opens, np.arange(len(score_N)), 0))
    return rank
