"""Two choices held against each other by their EVALS: difference, interval, p, verdict, and what these do not know."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from ...store.errors import InputError
from .holm import holm
from .interval import Interval
from .levels import Spread, Sums, Uncertainty, difference, spread_of, sums_of
from .pairs import Pairs, pair
from .permutation import Tested, paired_test
from .power import Aim
from .verdict import Verdict, decide

# a spread over seeds that rests on fewer degrees of freedom makes an interval wide by itself
FEW = 4


@dataclass(frozen=True)
class Comparison:
    """First minus second over N common questions of C clusters, and the chance `p` of so large a difference without any.

    `seeds`: trainings of either side. `p_adjusted`: Holm's, among the `comparisons` of one table (`adjusted`).
    `unknown`: questions whose picture is not known, each taken as a cluster of its own. `sure`: how sure it is, of which
    the interval is made.
    """

    difference: Interval
    rows: int
    clusters: int
    seeds: tuple[int, int]
    p: float
    test: str
    unknown: int
    p_adjusted: float
    sure: Uncertainty
    comparisons: int = 1

    @property
    def verdict(self) -> Verdict:
        """What is said of it: interval and adjusted p together, see `decide`."""
        return decide(self.difference, self.p_adjusted)

    @property
    def detectable(self) -> float | None:
        """The smallest difference that it would have told in 8 of 10 cases; None where there is no interval.

        By its own standard error, at the level that the smallest p of the table has to be under (Holm's first step).
        """
        aim = Aim(comparisons=self.comparisons)
        return self.sure.smallest(aim.level, aim.power)

    @property
    def notes(self) -> list[str]:
        """What a reader of the interval should know, in sentences."""
        freedom = None if self.sure.seeds is None else self.sure.seeds.freedom
        return notes(self.rows, self.clusters, self.seeds, self.unknown, freedom)


def compare(
    first: Sequence[pa.Table], second: Sequence[pa.Table], seed: int, spread: Spread | None = None
) -> Comparison:
    """Compare two choices by their EVALS tables, one per seed of training; a question's score is its mean over seeds.

    `spread`: that over seeds, pooled over the choices of a table (`spread_of`); else these two say what it is.

    Raises:
        InputError: no table or question, or the tables were not answered on the same questions of one benchmark; NaN.
        DuplicateRowsError: a question is there twice in one run.
    """
    return compare_pairs(pair(first, second), seed, spread)


def compare_pairs(
    pairs: Pairs, seed: int, spread: Spread | None = None, sums: tuple[Sums, Sums] | None = None
) -> Comparison:
    """Compare two sides that stand beside each other. `sums`: theirs by cluster, where they are known already.

    Raises:
        InputError: no question.
    """
    if not len(pairs.names_N):
        raise InputError("an EVALS table holds no question: there is nothing to compare.")
    ours, theirs = sums or (sums_of(pairs.first_SN, pairs.cluster_N), sums_of(pairs.second_TN, pairs.cluster_N))
    spread = spread or spread_of([ours.means_S, theirs.means_S], matched=False)
    sure, estimate = difference(ours, theirs, spread), ours.mean - theirs.mean
    tested = paired_test(pairs.first_SN.mean(0), pairs.second_TN.mean(0), pairs.cluster_N, seed)
    if sure.seeds is not None:  # random signs of pictures do not know how trainings vary
        tested = Tested(max(tested.p, sure.p(estimate)), f"t over seeds and pictures, and {tested.test}")
    sizes = (len(pairs.names_N), pairs.clusters, pairs.seeds)
    return Comparison(sure.interval(estimate), *sizes, tested.p, tested.test, pairs.unknown, tested.p, sure)


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons of one table, in order, with Holm's p among all of them."""
    ps = holm([c.p for c in comparisons])
    return [replace(c, p_adjusted=p, comparisons=len(ps)) for c, p in zip(comparisons, ps, strict=True)]


def notes(rows: int, clusters: int, seeds: Sequence[int], unknown: int, freedom: float | None = None) -> list[str]:
    """Say what an interval over so many clusters and seeds does not know; empty where there is nothing to say.

    `freedom`: the degrees of freedom of the spread over seeds, where that is known.
    """
    said = []
    if clusters == 1:
        said.append("All questions are about one picture: there is no interval.")
    elif clusters < 20:
        said.append(f"Only {clusters} pictures: an interval of so few is too narrow.")
    if unknown:
        said.append(
            f"Of {unknown:,} of {rows:,} questions it is not known which picture they are about: each is taken as one of "
            "its own, which makes the interval too narrow where pictures repeat."
        )
    if max(seeds) == 1 and freedom is None:
        said.append("One training seed: the interval does not hold what another seed would change.")
    elif min(seeds) == 1:
        said.append("One training seed on one side: it is taken to vary over seeds as those beside it do.")
    if freedom is not None and freedom < FEW:
        said.append(
            f"How much seeds differ rests on {freedom:.2g} degree{'s' * (freedom != 1)} of freedom, which alone makes an "
            "interval wide: more seeds narrow it, or more choices with the same seeds."
        )
    return said
