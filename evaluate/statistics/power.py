"""How many questions, pictures and training seeds a difference takes to be seen; before anything is evaluated.

Paired scores with E[d²] = `disagree` (of right and wrong answers: the share on which two models differ), m questions per
picture, a correlation ρ of d inside of a picture, N questions and S seeds per side. The difference D then has the variance
v = (disagree − D²) · (1 + (m − 1) · ρ) / N + 2 σ² / S, where σ is the spread of a training's score over seeds; random signs
of pictures, which do not know D, have m · D² / N more. A two-sided test at α sees D with power 1 − β where
D ≥ z(1 − α/2) · √(v + m D² / N) + z(1 − β) · √v; the seeds' part of v has t on 2(S − 1) degrees of freedom in the place of
z, as the interval has (`levels`). Sources: Connor 1987 (this, for m = 1 and one seed); Kish 1965 (design effect).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pyarrow as pa

from ...store.arrays import Array
from ...store.errors import InputError
from .bootstrap import cluster_sums
from .pairs import pair


@dataclass(frozen=True)
class Assumed:
    """What a plan rests on: E[d²], questions per picture, correlation of d inside of a picture, spread over seeds (0 … 1).

    `seed_spread` None: not known, and not counted.
    """

    disagree: float
    per_picture: float = 1.0
    correlation: float = 0.0
    seed_spread: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.disagree <= 1:
            raise InputError(
                f"two models differ on a share of the questions from 0 to 1 (and not 0), not {self.disagree}."
            )
        if self.per_picture < 1 or not 0 <= self.correlation <= 1:
            raise InputError(
                f"a picture has 1 question or more, and a correlation is 0 to 1, not {self.per_picture} and "
                f"{self.correlation}."
            )
        if self.seed_spread is not None and not 0 <= self.seed_spread < 1:
            raise InputError(f"the spread over seeds is 0 or more, of scores from 0 to 1, not {self.seed_spread}.")

    @property
    def design_effect(self) -> float:
        """How many times as many questions it takes, because those of one picture are alike."""
        return 1 + (self.per_picture - 1) * self.correlation


@dataclass(frozen=True)
class Aim:
    """A two-sided test at `alpha`, shared among `comparisons`, that is to see a difference with this `power`."""

    alpha: float = 0.05
    power: float = 0.8
    comparisons: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.power < 1 and self.comparisons >= 1):
            raise InputError("alpha and power lie between 0 and 1, and there is at least one comparison.")
        if self.power <= self.level / 2:
            raise InputError(f"a power of {self.power} is what chance alone gives at {self.level:g}; ask for more.")

    @property
    def level(self) -> float:
        """What the smallest p of so many has to be under (Holm's first step)."""
        return self.alpha / self.comparisons

    @property
    def quantiles(self) -> tuple[float, float]:
        """z(1 − level/2) and z(power)."""
        return NormalDist().inv_cdf(1 - self.level / 2), NormalDist().inv_cdf(self.power)


@dataclass(frozen=True)
class Needed:
    """What a difference takes with so many seeds per side; `questions` None: no number of questions is enough.

    `least_seeds`: below it the seeds' own spread hides the difference.
    """

    difference: float
    seeds: int
    questions: int | None
    pictures: int | None
    least_seeds: int


def needed(assumed: Assumed, difference: float, seeds: int, aim: Aim) -> Needed:
    """Return the questions and pictures that a difference takes.

    Raises:
        InputError: a difference is no share above 0, or larger than the share on which the models differ; no seed.
    """
    if not 0 < difference < 1 or seeds < 1:
        raise InputError(
            f"a difference is a share between 0 and 1, with one seed or more, not {difference} and {seeds}."
        )
    if difference > assumed.disagree:
        raise InputError(
            f"a difference of {100 * difference:g} points needs answers that differ on as many: "
            f"{100 * assumed.disagree:g} % is less."
        )
    least = _least_seeds(assumed.seed_spread or 0.0, difference, aim)
    if seeds < least:
        return Needed(difference, seeds, None, None, least)
    # fewer answers that differ than this give no p under the level, however they fall
    low = math.ceil(math.log2(2 / aim.level) / assumed.disagree * assumed.design_effect / assumed.per_picture) - 1
    high = low + 1
    while not _sees(assumed, difference, (high, seeds), aim):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _sees(assumed, difference, (middle, seeds), aim) else (middle, high)
    return Needed(difference, seeds, math.ceil(high * assumed.per_picture), high, least)


def seen(assumed: Assumed, pictures: int, seeds: int, aim: Aim) -> float | None:
    """Return the smallest difference that so many pictures and seeds see, as a share; None where they see none."""
    low, high = 0.0, assumed.disagree
    if not _sees(assumed, high, (pictures, seeds), aim):
        return None
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if _sees(assumed, middle, (pictures, seeds), aim) else (middle, high)
    return high


def _least_seeds(spread: float, difference: float, aim: Aim) -> int:
    """Return from how many seeds on a difference can be seen, were there any number of questions."""

    def hidden(seeds: int) -> bool:
        return sum(_t(aim, seeds)) * spread * math.sqrt(2 / seeds) >= difference

    low, high = 0, 1
    while hidden(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if hidden(middle) else (low, middle)
    return high


def _t(aim: Aim, seeds: int) -> tuple[float, float]:
    """Return t(1 − level/2) and t(power) of a spread that so many seeds per side show; one seed is taken as two."""
    # here: it takes a second to import
    from scipy.special import stdtrit

    freedom = 2 * max(seeds - 1, 1)
    return float(stdtrit(freedom, 1 - aim.level / 2)), float(stdtrit(freedom, aim.power))


def _sees(assumed: Assumed, difference: float, sizes: tuple[int, int], aim: Aim) -> bool:
    """Whether a difference is seen with so many (pictures, seeds)."""
    pictures, seeds = sizes
    questions = pictures * assumed.per_picture
    variance = (assumed.disagree - difference**2) * assumed.design_effect / questions
    (of_level, of_power), between = aim.quantiles, assumed.seed_spread or 0.0
    t_level, t_power = _t(aim, seeds) if between else (0.0, 0.0)
    between = 2 * between**2 / seeds
    level = math.sqrt(of_level**2 * (variance + difference**2 / pictures) + t_level**2 * between)
    return difference >= level + math.sqrt(of_power**2 * variance + t_power**2 * between)


@dataclass(frozen=True)
class Estimated:
    """What two finished choices say: `assumed` for a plan, and what it was estimated from."""

    assumed: Assumed
    questions: int
    pictures: int
    seeds: tuple[int, int]
    unknown: int


def estimate(first: Sequence[pa.Table], second: Sequence[pa.Table]) -> Estimated:
    """Estimate a plan's assumptions from two choices' EVALS, one table per seed.

    Questions per picture: Σ n² / Σ n, by which the design effect of unequal pictures goes; an effect under 1 is taken as 1.
    The spread over seeds is known from two seeds of a side on.

    Raises:
        InputError: as `pair`; one picture alone, or the two never differ.
    """
    pairs = pair(first, second)
    difference_N = pairs.first_SN.mean(0) - pairs.second_TN.mean(0)
    if not difference_N.any():
        raise InputError("the two never differ: nothing can be estimated from them. Give --disagree.")
    if pairs.clusters < 2:
        raise InputError("all questions are about one picture: how others differ cannot be estimated from it.")
    effect, per_picture = design_effect(difference_N, pairs.cluster_N)
    correlation = (max(effect, 1.0) - 1) / (per_picture - 1) if per_picture > 1 else 0.0
    assumed = Assumed(
        float(np.mean(difference_N**2)), per_picture, min(correlation, 1.0), _spread([pairs.first_SN, pairs.second_TN])
    )
    return Estimated(assumed, len(pairs.names_N), pairs.clusters, pairs.seeds, pairs.unknown)


def design_effect(values_N: Array, cluster_N: Array) -> tuple[float, float]:
    """Return (variance of the mean over clusters ÷ that over independent rows, Σ n² / Σ n)."""
    sizes_C, sums_C = cluster_sums(values_N[:, None], cluster_N).T
    mean, clusters = values_N.mean(), len(sizes_C)
    clustered = clusters / (clusters - 1) * ((sums_C - sizes_C * mean) ** 2).sum() / sizes_C.sum() ** 2
    independent = values_N.var(ddof=1) / len(values_N)
    effect = clustered / independent if independent > 0 else 1.0
    return float(effect), float((sizes_C**2).sum() / sizes_C.sum())


def _spread(sides: list[Array]) -> float | None:
    """Return the pooled standard deviation of a training's score over seeds; None where no side has two."""
    several = [scores_SN.mean(1) for scores_SN in sides if len(scores_SN) > 1]
    if not several:
        return None
    freedom = sum(len(means_S) - 1 for means_S in several)
    return math.sqrt(sum(((means_S - means_S.mean()) ** 2).sum() for means_S in several) / freedom)
