"""How alike selectors are: the rows that two choices share, and how they rank the pool, beside what chance would give.

Axes: S selectors, K rows of a choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ....store.arrays import Array
from .choices import Choice, Chosen
from .scores import Scored

# rows of which Kendall's τ is taken: it grows faster than the pool
KENDALL = 50_000
# the first fifth of a choice has some 85 % of the weight of the rank-biased overlap
DEPTH = 5.0


@dataclass(frozen=True)
class Shared:
    """Two choices at one budget, means over the seeds that both have.

    `share`: of the smaller one; `biased`: rank-biased overlap (Webber 2010, extrapolated). `…_chance`: of two random draws.
    """

    first: str
    second: str
    rows: float
    jaccard: float
    jaccard_chance: float
    share: float
    share_chance: float
    biased: float
    biased_chance: float


@dataclass(frozen=True)
class Ranked:
    """How two selectors rank the rows that both scored: Spearman's ρ, and Kendall's τ-b over `kendall_rows` of them."""

    first: str
    second: str
    rows: int
    spearman: float
    kendall: float
    kendall_rows: int


@dataclass(frozen=True)
class Overlap:
    """By budget: pairs of selectors, and pairs of seeds of one selector; then all pairs of scores."""

    pairs: dict[str, list[Shared]]
    seeds: dict[str, list[Shared]]
    ranks: list[Ranked]


def overlap_of(chosen: Chosen) -> Overlap | None:
    """Compare all selectors with each other, and each with itself at other seeds; None where there is one choice."""
    pairs, seeds = {}, {}
    for budget in chosen.budgets():
        every = [c for c in chosen.choices if c.budget == budget]
        names = list(dict.fromkeys(c.selector for c in every))
        by_name = {name: {c.seed: c for c in every if c.selector == name} for name in names}
        between = [_shared(chosen.rows, by_name[a], by_name[b]) for a, b in combinations(names, 2)]
        pairs[budget] = [one for one in between if one is not None]
        seeds[budget] = [one for name in names if (one := _of_seeds(chosen.rows, name, by_name[name])) is not None]
    ranks = [_ranked(a, b) for a, b in combinations(_one_each(chosen.scored), 2)]
    if not any(pairs.values()) and not any(seeds.values()):
        return None
    return Overlap(pairs, seeds, [r for r in ranks if r is not None])


def jaccard_chance(rows: int, first: int, second: int) -> float:
    """Return the mean Jaccard index of two random draws of so many of `rows` rows."""
    from scipy.stats import hypergeom

    common = hypergeom(rows, first, second)
    low, high = common.support()
    middle, wide = common.mean(), 12 * common.std() + 1
    n = np.arange(max(low, int(middle - wide)), min(high, int(middle + wide) + 1) + 1)
    return float((common.pmf(n) * n / (first + second - n)).sum())


def rank_biased(shared_D: Array) -> float:
    """Return the rank-biased overlap of two lists; `shared_D[d]`: how many they share in their first d + 1."""
    depth = len(shared_D)
    p = max(0.5, 1 - DEPTH / depth)
    d = np.arange(1, depth + 1)
    agreement = shared_D / d
    return float(agreement[-1] * p**depth + (1 - p) / p * (agreement * p**d).sum())


def shared_by_depth(first_K: Array, second_K: Array, rows: int) -> Array:
    """Return how many rows two lists share in their first d + 1, up to the shorter one's end."""
    depth = min(len(first_K), len(second_K))
    place = np.full(rows, depth, np.int64)
    place[first_K[:depth]] = np.arange(depth)
    later = np.maximum(place[second_K[:depth]], np.arange(depth))
    return np.cumsum(np.bincount(later[later < depth], minlength=depth)[:depth])


def _shared(rows: int, first: dict[int, Choice], second: dict[int, Choice]) -> Shared | None:
    """Compare two selectors at the seeds that both have."""
    both = [(first[s], second[s]) for s in first if s in second]
    return _mean(rows, both) if both else None


def _of_seeds(rows: int, name: str, by_seed: dict[int, Choice]) -> Shared | None:
    pairs = list(combinations(by_seed.values(), 2))
    return _mean(rows, pairs) if pairs else None


def _mean(rows: int, pairs: list[tuple[Choice, Choice]]) -> Shared:
    numbers = np.array([_numbers(rows, a.rows_K, b.rows_K) for a, b in pairs]).mean(0)
    return Shared(pairs[0][0].selector, pairs[0][1].selector, *map(float, numbers))


def _numbers(rows: int, a_K: Array, b_K: Array) -> tuple[float, ...]:
    taken = np.zeros(rows, bool)
    taken[a_K] = True
    common, smaller = int(taken[b_K].sum()), min(len(a_K), len(b_K))
    by_depth = shared_by_depth(a_K, b_K, rows)
    by_chance = np.arange(1, len(by_depth) + 1) ** 2 / rows
    return (
        common,
        common / (len(a_K) + len(b_K) - common),
        jaccard_chance(rows, len(a_K), len(b_K)),
        common / smaller,
        max(len(a_K), len(b_K)) / rows,
        rank_biased(by_depth),
        rank_biased(by_chance),
    )


def _one_each(scored: list[Scored]) -> list[Scored]:
    """Return the scores of each selector's first seed; those of several pick rules once."""
    first: dict[str, Scored] = {}
    for one in scored:
        if not any(one.best_N is other.best_N for other in first.values()):
            first.setdefault(one.selector, one)
    return list(first.values())


def _ranked(a: Scored, b: Scored) -> Ranked | None:
    from scipy.stats import kendalltau, rankdata

    both = np.flatnonzero((a.rank_N > 0) & (b.rank_N > 0))
    if len(both) < 2:
        return None
    sides = [one.best_N[both] for one in (a, b)]
    if any(side.min() == side.max() for side in sides):
        return Ranked(a.selector, b.selector, len(both), float("nan"), float("nan"), 0)
    some = both if len(both) <= KENDALL else np.sort(np.random.default_rng(0).choice(both, KENDALL, replace=False))
    spearman = float(np.corrcoef(rankdata(sides[0]), rankdata(sides[1]))[0, 1])
    tau = float(kendalltau(a.best_N[some], b.best_N[some]).statistic)
    return Ranked(a.selector, b.selector, len(both), spearman, tau, len(some))


Measure = Callable[[Shared], tuple[float, float]]
# what a matrix shows of a pair: what was measured, and what chance would give
MEASURES: dict[str, Measure] = {
    "Jaccard (rows in both ÷ rows in either)": lambda s: (s.jaccard, s.jaccard_chance),
    "rows in common ÷ rows of the smaller choice": lambda s: (s.share, s.share_chance),
    "rank-biased overlap": lambda s: (s.biased, s.biased_chance),
}
