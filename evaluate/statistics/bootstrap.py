"""Intervals by resampling whole clusters (pictures), seeded. Comparisons, which know of seeds too, go by `levels.py`.

Axes: N questions, C clusters, K columns, M kinds of clusters, R draws. Clusters that are alike (as many questions,
the same sums) are one kind: a draw of C clusters is one multinomial over the kinds, so 0/1 scores cost few of them.
Source: Efron & Tibshirani 1993, ch. 13; clusters: Davison & Hinkley 1997, §3.8.
"""

import numpy as np

from ...store.arrays import Array
from ...store.errors import InputError
from .interval import Interval

DRAWS = 10_000
CONFIDENCE = 0.95
# with more kinds than this share of the clusters, clusters are drawn one by one
MANY = 0.1
# numbers of a block of draws: 16 MB
_CELLS = 1 << 21


def resampled_sums(columns_NK: Array, cluster_N: Array, seed: int | list[int], draws: int = DRAWS) -> Array:
    """Return [R, 1 + K]: how many questions each draw of C clusters holds, and the sums of the columns over them."""
    sums_CK = cluster_sums(columns_NK, cluster_N)
    kinds_MK, counts_M = _kinds(sums_CK)
    if len(kinds_MK) > MANY * len(sums_CK):
        kinds_MK, counts_M = sums_CK, np.ones(len(sums_CK), np.int64)
    rng, step = np.random.default_rng(seed), max(1, _CELLS // len(kinds_MK))
    blocks = [_times(rng, counts_M, min(step, draws - done)) @ kinds_MK for done in range(0, draws, step)]
    return np.concatenate(blocks)


def _kinds(sums_CK: Array) -> tuple[Array, Array]:
    """Return the distinct rows [M, K] and how often each is there: `np.unique(axis=0)`, of which that takes seconds."""
    # twelve digits: 0.1 + 0.2 and 0.3 are one kind
    rounded_CK = sums_CK.round(12)
    ranked_CK = rounded_CK[np.lexsort(rounded_CK.T)]
    first = np.flatnonzero(np.r_[True, (ranked_CK[1:] != ranked_CK[:-1]).any(1)])
    return ranked_CK[first], np.diff(np.r_[first, len(ranked_CK)])


def _times(rng: np.random.Generator, counts_M: Array, draws: int) -> Array:
    """Return [R, M]: how often each kind is in a draw of as many clusters as there are."""
    kinds, clusters = len(counts_M), int(counts_M.sum())
    if clusters > kinds:
        return rng.multinomial(clusters, counts_M / clusters, size=draws).astype(np.float64)
    # where each is a kind of its own, drawing them one by one takes a tenth of the time
    drawn_RC = rng.integers(0, kinds, size=(draws, kinds)) + np.arange(draws)[:, None] * kinds
    return np.bincount(drawn_RC.ravel(), minlength=draws * kinds).reshape(draws, kinds).astype(np.float64)


def cluster_sums(columns_NK: Array, cluster_N: Array) -> Array:
    """Return [C, 1 + K]: each cluster's questions and sums."""
    columns = [np.ones(len(cluster_N)), *columns_NK.T]
    return np.stack([np.bincount(cluster_N, weights=column_N) for column_N in columns], axis=1)


def mean_intervals(
    values_NK: Array, seed: int, cluster_N: Array | None = None, draws: int = DRAWS, confidence: float = CONFIDENCE
) -> list[Interval]:
    """Return each column's mean with its percentile interval; a draw is the same for all K columns.

    Without `cluster_N` every row is a cluster of its own.

    Raises:
        InputError: no rows.
    """
    if not len(values_NK):
        raise InputError("an interval needs at least one row.")
    values_NK = np.asarray(values_NK, np.float64)
    cluster_N = np.arange(len(values_NK)) if cluster_N is None else cluster_N
    mean_K = values_NK.mean(0)
    if cluster_N.max() == 0:
        return [Interval.unknown(float(mean)) for mean in mean_K]
    sums_RK = resampled_sums(values_NK, cluster_N, seed, draws)
    return [
        percentile(float(mean), sums_RK[:, k] / sums_RK[:, 0], confidence) for k, mean in enumerate(mean_K, start=1)
    ]


def percentile(estimate: float, draws_R: Array, confidence: float = CONFIDENCE) -> Interval:
    """Return an estimate with the percentile interval of its draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws_R, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))
