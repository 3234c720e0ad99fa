"""How sure an estimate is where pictures and seeds of training both vary: two levels of error, each with its own t.

An estimate is a mean over N questions of C pictures and over S seeds; another S seeds and another C pictures would give
another one. Both variances are estimated from the answers; seeds are few, so that each level has the t of its own degrees
of freedom: half the interval is √(Σ t²(level) · variance(level)). A bootstrap of three seeds would be too narrow, as it
cannot know that three may be alike by chance. Sources: Cameron, Gelbach & Miller 2011 (two ways of clustering); Howe 1974
(the sum of squared half-widths); Satterthwaite 1946. Axes: S seeds, C clusters (pictures), K choices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...store.arrays import Array
from .interval import Interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Level:
    """One source of error: its variance, and on how many degrees of freedom that rests."""

    variance: float
    freedom: float

    def times(self, factor: float) -> "Level":
        """Return it with `factor` times the variance."""
        return Level(self.variance * factor, self.freedom)


@dataclass(frozen=True)
class Uncertainty:
    """The levels of an estimate's error: `pictures`, and `seeds`, None where one seed says nothing of others."""

    pictures: Level
    seeds: Level | None = None

    @property
    def _levels(self) -> list[Level]:
        return [level for level in (self.pictures, self.seeds) if level is not None and level.variance > 0]

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(sum(level.variance for level in self._levels))

    def half(self, quantile: float) -> float:
        """Return half of the interval whose upper end is this quantile: 0.975 for one of 95 %."""
        # here: it takes a second to import
        from scipy.special import stdtrit

        known = self._levels
        if any(not math.isfinite(level.variance) for level in known):
            return math.inf
        return math.sqrt(sum(float(stdtrit(level.freedom, quantile)) ** 2 * level.variance for level in known))

    def interval(self, estimate: float, confidence: float = CONFIDENCE) -> Interval:
        """Return the estimate with its interval; without one where there is one picture alone."""
        half = self.half(0.5 + confidence / 2)
        return Interval(estimate, estimate - half, estimate + half)

    def p(self, estimate: float) -> float:
        """Return the largest share of intervals that would still hold 0: the p of the estimate, two-sided."""
        size = abs(estimate)
        if not self._levels:
            return 1.0 if size == 0 else 0.0
        low, high = 0.0, 1.0
        if self.half(1 - 1e-15) <= size:
            return 2e-15
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.half(1 - middle / 2) <= size else (middle, high)
        return high

    def smallest(self, level: float, power: float) -> float | None:
        """Return the smallest difference that is seen with this power at this level; None where nothing varies."""
        size = self.half(1 - level / 2) + self.half(power)
        return size if 0 < size < math.inf else None


@dataclass(frozen=True)
class Sums:
    """One choice's scores by seed and cluster: `sums_SC`, and how many questions each cluster has, `sizes_C`."""

    sums_SC: Array
    sizes_C: Array

    @property
    def means_S(self) -> Array:
        """Each seed's mean score."""
        return self.sums_SC.sum(1) / self.sizes_C.sum()

    @property
    def mean(self) -> float:
        """The mean over questions and seeds."""
        return float(self.means_S.mean())

    def scaled(self) -> Array:
        """Return [S, C]: what each cluster adds to its seed's mean beyond what its size would; rows add up to 0."""
        return (self.sums_SC - self.sizes_C * self.means_S[:, None]) / self.sizes_C.sum()


def sums_of(scores_SN: Array, cluster_N: Array) -> Sums:
    """Return the sums of scores by cluster."""
    clusters = int(cluster_N.max()) + 1
    sums = [np.bincount(cluster_N, weights=score_N, minlength=clusters) for score_N in scores_SN]
    return Sums(np.stack(sums), np.bincount(cluster_N, minlength=clusters))


@dataclass(frozen=True)
class Spread:
    """How a training's score varies over seeds: of one choice (`alone`), and of two that share their seeds (`paired`).

    `paired` is the variance of one seed's difference; None where seeds do not match.
    """

    alone: Level
    paired: Level | None = None


def spread_of(means: Sequence[Array], matched: bool) -> Spread | None:
    """Return the spread over seeds, pooled over K choices that are taken to vary alike; None without two seeds of any.

    `means`: each choice's scores by seed; `matched`: they are of the same seeds in the same order. Then what a seed does to
    all choices is taken out of their differences (a two-way layout: (K − 1)(S − 1) degrees of freedom).
    """
    several = [m_S for m_S in means if len(m_S) > 1]
    if not several:
        return None
    if matched and len(several) == len(means) > 1:
        m_KS = np.stack(several)
        k, s = m_KS.shape
        by_seed = k * m_KS.mean(0).var(ddof=1)
        left = m_KS - m_KS.mean(0) - m_KS.mean(1)[:, None] + m_KS.mean()
        freedom = (k - 1) * (s - 1)
        own = float((left**2).sum()) / freedom
        parts = (Level(float(by_seed) / k, s - 1), Level(own * (k - 1) / k, freedom))
        return Spread(_added(parts), Level(2 * own, freedom))
    freedom = sum(len(m_S) - 1 for m_S in several)
    squares = sum(float(((m_S - m_S.mean()) ** 2).sum()) for m_S in several)
    return Spread(Level(squares / freedom, freedom))


def difference(first: Sums, second: Sums, spread: Spread | None) -> Uncertainty:
    """Return how sure mean(first) − mean(second) is. `spread`: of a table's choices; None: one seed each."""
    ours_SC, theirs_TC = first.scaled(), second.scaled()
    s, t = len(ours_SC), len(theirs_TC)
    paired = spread.paired if spread is not None and s == t else None
    apart_C = ours_SC.mean(0) - theirs_TC.mean(0)
    if spread is None:
        return Uncertainty(_pictures(apart_C, 0.0))
    if paired is not None:
        own = float((first.means_S - second.means_S).var(ddof=1))
        seeds = Level(max(paired.variance, own) / s, paired.freedom)
        return Uncertainty(_pictures(apart_C, _mixed(ours_SC - theirs_TC)), seeds)
    pair = spread_of([first.means_S, second.means_S], matched=False)
    own = pair.alone.variance if pair is not None else 0.0
    seeds = Level(max(spread.alone.variance, own) * (1 / s + 1 / t), spread.alone.freedom)
    return Uncertainty(_pictures(apart_C, _mixed(ours_SC) + _mixed(theirs_TC)), seeds)


def mean(one: Sums, spread: Spread | None) -> Uncertainty:
    """Return how sure one choice's mean score is."""
    own_SC = one.scaled()
    pictures = _pictures(own_SC.mean(0), _mixed(own_SC) if spread is not None else 0.0)
    return Uncertainty(pictures, _of_mean(one.means_S, spread))


def ratio(first: Sequence[Sums], second: Sequence[Sums], spread: Spread | None = None) -> Uncertainty:
    """Return how sure the mean over benchmarks of mean(first) ÷ mean(second) is, by its first-order change.

    `spread`: of choices like the first, where there is one benchmark; else each side goes by its own seeds, and one with a
    single seed is taken to vary as the other does.
    """
    pairs, n = list(zip(first, second, strict=True)), len(first)
    pictures_variance, freedom = 0.0, math.inf
    ours_S, theirs_T = np.zeros(len(first[0].means_S)), np.zeros(len(second[0].means_S))
    several = max(len(ours_S), len(theirs_T)) > 1
    for one, other in pairs:
        a_SC, b_TC = one.scaled() / (n * other.mean), other.scaled() * one.mean / (n * other.mean**2)
        level = _pictures(a_SC.mean(0) - b_TC.mean(0), _mixed(a_SC) + _mixed(b_TC) if several else 0.0)
        pictures_variance, freedom = pictures_variance + level.variance, min(freedom, level.freedom)
        ours_S = ours_S + one.means_S / (n * other.mean)
        theirs_T = theirs_T + other.means_S * one.mean / (n * other.mean**2)
    if n == 1 and spread is not None:
        spread = Spread(spread.alone.times(1 / second[0].mean ** 2))
    levels = [_of_mean(ours_S, spread if n == 1 else None), _of_mean(theirs_T, None)]
    known = [level for level in levels if level is not None]
    if len(known) == 1:  # the other side has one seed
        lone, held = (theirs_T, ours_S) if levels[1] is None else (ours_S, theirs_T)
        known.append(known[0].times(len(held) / len(lone)))
    return Uncertainty(Level(pictures_variance, freedom), _added(known) if known else None)


def _of_mean(means_S: Array, spread: Spread | None) -> Level | None:
    """Return the variance of a mean over seeds: the pooled one, or its own where that is more."""
    own = spread_of([means_S], matched=False)
    held = spread or own
    if held is None:
        return None
    largest = max(held.alone.variance, own.alone.variance if own is not None else 0.0)
    return Level(largest / len(means_S), held.alone.freedom)


def _pictures(apart_C: Array, mixed: float) -> Level:
    """Return the pictures' own level; `mixed`: the part that the seeds' level holds already."""
    clusters = len(apart_C)
    if clusters == 1:
        return Level(math.inf, 1)
    whole = clusters / (clusters - 1) * float((apart_C**2).sum())
    return Level(max(0.0, whole - mixed), clusters - 1)


def _mixed(scaled_SC: Array) -> float:
    """Return the variance of a mean by what seeds and pictures do together: answers that another seed turns over."""
    s, clusters = scaled_SC.shape
    if s == 1 or clusters == 1:
        return 0.0
    left_SC = scaled_SC - scaled_SC.mean(0)
    return clusters / (s * (s - 1) * (clusters - 1)) * float((left_SC**2).sum())


def _added(levels: Sequence[Level]) -> Level:
    """Return the sum of independent variances, with Satterthwaite's degrees of freedom."""
    variance = sum(level.variance for level in levels)
    if variance == 0:
        return Level(0.0, sum(level.freedom for level in levels))
    return Level(variance, variance**2 / sum(level.variance**2 / level.freedom for level in levels))
