"""Is a difference more than chance? McNemar's exact test, or random signs of whole clusters; seeded.

Axes: N questions, C clusters, M distinct sizes of a cluster's difference, R draws, L places of a lattice.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from ...store.arrays import Array
from ...store.errors import InputError
from .bootstrap import DRAWS

# clusters that differ, at most, for which every pattern of signs is counted: 2^12 of them
EXACT = 12
_CELLS = 1 << 22
# scores are often multiples of one over this or less (right or wrong, ten people, means of a few seeds); of so many places
MOST_PARTS, MOST_PLACES = 360, 1 << 18
# what the sums of a Fourier transform are good to
_ROUNDING = 1e-12


@dataclass(frozen=True)
class McNemar:
    """Discordant pairs (only the first right, only the second right) and the two-sided exact p."""

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class Tested:
    """The chance `p` of so large a difference if there were none, two-sided, and the test that says so."""

    p: float
    test: str


def paired_test(first_N: Array, second_N: Array, cluster_N: Array, seed: int, draws: int = DRAWS) -> Tested:
    """Test a difference of paired scores: McNemar for right and wrong answers of one picture each, else random signs.

    Raises:
        InputError: the two differ in length, or are empty.
    """
    alone = len(cluster_N) > 0 and cluster_N.max() + 1 == len(cluster_N)
    if alone and set(np.unique([first_N, second_N])) <= {0.0, 1.0}:
        return Tested(mcnemar_exact(first_N, second_N).p, "McNemar, exact")
    return sign_flip(first_N, second_N, cluster_N, seed, draws)


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


def sign_flip(first_N: Array, second_N: Array, cluster_N: Array, seed: int, draws: int = DRAWS) -> Tested:
    """Return the chance of a difference as large as this one if each cluster's sign were a coin's.

    Clusters whose differences add up to nothing say nothing. With at most `EXACT` others every pattern is counted; where
    all are multiples of one number, the distribution of their sum is worked out whole (a product of cosines, transformed
    back; good to 1e-12, below which p does not go); else `(1 + as large) / (1 + draws)` over seeded draws. Never 0. Source:
    Fisher's randomisation test; Phipson & Smyth 2010 for the 1.

    Raises:
        InputError: the two differ in length, or are empty.
    """
    if not len(first_N) == len(second_N) == len(cluster_N) or not len(first_N):
        raise InputError(f"paired scores need the same samples: {len(first_N)} against {len(second_N)}.")
    difference_N = np.asarray(first_N, np.float64) - np.asarray(second_N, np.float64)
    sums_C = np.bincount(cluster_N, weights=difference_N).round(12)
    sums_C = sums_C[sums_C != 0]
    least = abs(float(sums_C.sum())) - 1e-9
    if len(sums_C) <= EXACT:
        patterns = list(itertools.product((1.0, -1.0), repeat=len(sums_C)))
        signs = np.array(patterns).reshape(len(patterns), len(sums_C))
        return Tested(float(np.mean(np.abs(signs @ sums_C) >= least)), "random signs of clusters, exact")
    sizes_M, counts_M = np.unique(np.abs(sums_C), return_counts=True)
    if (steps_M := _steps(sizes_M, counts_M)) is not None:
        return Tested(
            _tail(steps_M, counts_M, abs(float(sums_C.sum())) / sizes_M[0] * steps_M[0]),
            "random signs of clusters, exact",
        )
    rng, step, as_large = np.random.default_rng(seed), max(1, _CELLS // len(sizes_M)), 0
    for done in range(0, draws, step):
        # signs of equal sizes are one binomial draw
        heads_RM = rng.binomial(counts_M, 0.5, size=(min(step, draws - done), len(sizes_M)))
        as_large += int((np.abs((2 * heads_RM - counts_M) @ sizes_M) >= least).sum())
    return Tested((1 + as_large) / (1 + draws), f"random signs of clusters, {draws:,} draws")


def _steps(sizes_M: Array, counts_M: Array) -> Array | None:
    """Return the sizes as whole multiples of one number, where that makes few enough places."""
    for parts in range(1, MOST_PARTS + 1):
        steps_M = (sizes_M * parts).round()
        if np.abs(sizes_M * parts - steps_M).max() < 1e-7:
            return steps_M.astype(np.int64) if steps_M @ counts_M < MOST_PLACES else None
    return None


def _tail(steps_M: Array, counts_M: Array, reached: float) -> float:
    """Return P(|Σ ± steps| ≥ reached), each sign a coin's: the transform of the sum is a product of cosines."""
    total = int(steps_M @ counts_M)
    places = total + 1  # the sum is 2x − total with x from 0 to total
    turn_L = np.pi * np.arange(places // 2 + 1) / places
    wave_L = np.exp(-1j * turn_L * total)
    for step, count in zip(steps_M.tolist(), counts_M.tolist(), strict=True):
        wave_L *= np.cos(turn_L * step) ** count
    chance_L = np.fft.irfft(wave_L, n=places)
    reaches = np.abs(2 * np.arange(places) - total) >= reached - 1e-6
    return float(min(1.0, max(chance_L[reaches].sum(), _ROUNDING)))
