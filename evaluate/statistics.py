"""Is a difference of accuracies real? Paired bootstrap, McNemar's exact test, Wilson's interval; all seeded.

Axes: N test samples, R bootstrap draws, S runs (seeds). Pairing is by the EVALS column `sample`.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..store.arrays import Array
from ..store.errors import DuplicateRowsError, InputError

DRAWS = 10_000
# a difference is told apart where so rare a one would be chance
LEVEL = 0.05
_CELLS = 1 << 24


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval at the given confidence."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """Discordant pairs (only the first right, only the second right) and the two-sided exact p."""

    only_first: int
    only_second: int
    p: float


def wilson_interval(correct: int, rows: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share (Wilson 1927, eq. for p; no continuity correction).

    Raises:
        InputError: no rows, or more correct than rows.
    """
    if not 0 <= correct <= rows or rows < 1:
        raise InputError(f"a share needs 0 ≤ correct ≤ rows and rows ≥ 1, not {correct} of {rows}.")
    # here: it takes a second to import
    from scipy.stats import binomtest

    bounds = binomtest(correct, rows).proportion_ci(confidence, method="wilson")
    return Interval(correct / rows, float(bounds.low), float(bounds.high))


def paired_bootstrap(
    first_N: Array, second_N: Array, seed: int, draws: int = DRAWS, confidence: float = 0.95
) -> Interval:
    """Return mean(first) − mean(second) with its percentile interval, resampling the N pairs together.

    Resampling N pairs equals one multinomial draw over the distinct differences, so 0/1 scores of any N cost
    three numbers per draw. Source: Efron & Tibshirani 1993, ch. 13.

    Raises:
        InputError: the two differ in length, or are empty.
    """
    if len(first_N) != len(second_N) or not len(first_N):
        raise InputError(f"paired scores need the same samples: {len(first_N)} against {len(second_N)}.")
    difference_N = np.asarray(first_N, np.float64) - np.asarray(second_N, np.float64)
    values, counts = np.unique(difference_N, return_counts=True)
    n, rng = len(difference_N), np.random.default_rng(seed)
    step = max(1, _CELLS // len(values))
    means_R = np.concatenate(
        [rng.multinomial(n, counts / n, size=min(step, draws - done)) @ values / n for done in range(0, draws, step)]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means_R, [tail, 1 - tail])
    return Interval(float(difference_N.mean()), float(low), float(high))


def mean_intervals(values_NK: Array, seed: int, draws: int = DRAWS, confidence: float = 0.95) -> list[Interval]:
    """Return each column's mean with its percentile interval, resampling the N rows, the same rows for all K columns.

    Raises:
        InputError: no rows.
    """
    n = len(values_NK)
    if not n:
        raise InputError("an interval needs at least one row.")
    values_NK, rng = np.asarray(values_NK, np.float64), np.random.default_rng(seed)
    step = max(1, _CELLS // n)
    chance_N = np.full(n, 1 / n)
    means_RK = np.concatenate(
        [rng.multinomial(n, chance_N, size=min(step, draws - d)) @ values_NK / n for d in range(0, draws, step)]
    )
    tail = (1 - confidence) / 2
    low_K, high_K = np.quantile(means_RK, [tail, 1 - tail], axis=0)
    mean_K = values_NK.mean(0)
    return [Interval(float(m), float(a), float(b)) for m, a, b in zip(mean_K, low_K, high_K, strict=True)]


def mcnemar_exact(first_N: Array, second_N: Array) -> McNemar:
    """Test whether paired right/wrong answers differ: exact binomial on the discordant pairs, two-sided.

    Source: McNemar 1947; p = min(1, 2 · P[Bin(b + c, ½) ≤ min(b, c)]), 1 without discordant pairs.

    Raises:
        InputError: the two differ in length.
    """
    if len(first_N) != len(second_N):
        raise InputError(f"paired answers need the same samples: {len(first_N)} against {len(second_N)}.")
    first_N, second_N = np.asarray(first_N, bool), np.asarray(second_N, bool)
    b, c = int((first_N & ~second_N).sum()), int((~first_N & second_N).sum())
    if b + c == 0:
        return McNemar(b, c, 1.0)
    from scipy.stats import binomtest

    return McNemar(b, c, float(binomtest(b, b + c).pvalue))


def sign_flip(first_N: Array, second_N: Array, seed: int, draws: int = DRAWS) -> float:
    """Return the chance of a mean difference as large as this one if each sample's sign were a coin's, two-sided.

    Samples that do not differ say nothing. `(1 + as large) / (1 + draws)` over seeded draws: never 0. Source: Fisher's
    randomisation test; Phipson & Smyth 2010 for the 1.

    Raises:
        InputError: the two differ in length, or are empty.
    """
    if len(first_N) != len(second_N) or not len(first_N):
        raise InputError(f"paired scores need the same samples: {len(first_N)} against {len(second_N)}.")
    difference_N = np.asarray(first_N, np.float64) - np.asarray(second_N, np.float64)
    sizes, counts = np.unique(np.abs(difference_N[difference_N != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    # signs of equal sizes are one binomial draw
    heads_RK = np.random.default_rng(seed).binomial(counts, 0.5, size=(draws, len(sizes)))
    sums_R = np.abs((2 * heads_RK - counts) @ sizes)
    return float((1 + (sums_R >= abs(difference_N.sum()) - 1e-9).sum()) / (1 + draws))


@dataclass(frozen=True)
class Comparison:
    """First minus second over N common samples, and the chance `p` of so large a difference if there were none.

    `p` is McNemar's exact one for right and wrong answers, else that of random signs (`sign_flip`).
    """

    difference: Interval
    rows: int
    p: float

    @property
    def verdict(self) -> str:
        """`better` or `worse` where interval and p both say so (0 outside it, p under 5 %), else `no clear difference`.

        A bootstrap of three differing samples cannot see that three of three is chance (p = 0.25).
        """
        if self.p >= LEVEL or self.difference.low <= 0 <= self.difference.high:
            return "no clear difference"
        return "better" if self.difference.estimate > 0 else "worse"


def compare(first: list[pa.Table], second: list[pa.Table], seed: int, draws: int = DRAWS) -> Comparison:
    """Compare two choices by their EVALS tables, one per seed; a sample's score is its mean over seeds.

    The interval speaks about other test samples of this kind; with one seed it does not know how training
    varies.

    Raises:
        InputError: no table, or the tables were not answered on the same samples.
        DuplicateRowsError: a sample is there twice in one run.
    """
    if not first or not second:
        raise InputError("a comparison needs at least one EVALS table on each side.")
    names, scores_N = mean_scores(first)
    others, reference_N = mean_scores(second)
    if not np.array_equal(names, others):
        common = len(np.intersect1d(names, others))
        raise InputError(
            f"paired comparison: {len(names)} against {len(others)} samples, {common} in common. Answer one "
            "test pool with both."
        )
    if len(first) == len(second) == 1 and set(np.unique([scores_N, reference_N])) <= {0.0, 1.0}:
        p = mcnemar_exact(scores_N, reference_N).p
    else:
        p = sign_flip(scores_N, reference_N, seed, draws)
    return Comparison(paired_bootstrap(scores_N, reference_N, seed, draws), len(names), p)


def mean_scores(tables: list[pa.Table]) -> tuple[Array, Array]:
    """Return (samples [N] ascending, mean score over the S tables [N]).

    Raises:
        InputError: the tables hold different samples.
        DuplicateRowsError: a sample is there twice in one of them.
    """
    names: Array | None = None
    total_N: Array = np.zeros(0)
    for table in tables:
        samples = np.array(table["sample"].to_pylist(), dtype=np.str_)
        order = np.argsort(samples, kind="stable")
        ranked = samples[order]
        if (ranked[1:] == ranked[:-1]).any():
            raise DuplicateRowsError("an EVALS table holds a sample twice: give one run a table.")
        scores_N = table["score"].to_numpy()[order]
        if names is None:
            names, total_N = ranked, scores_N
        elif not np.array_equal(names, ranked):
            raise InputError(f"runs to be averaged were asked other samples ({len(names)}, {len(ranked)}).")
        else:
            total_N = total_N + scores_N
    assert names is not None
    return names, total_N / len(tables)
