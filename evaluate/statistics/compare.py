"""Two choices held against each other by their EVALS: difference, interval, p, verdict, and what these do not know."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from .bootstrap import DRAWS, paired_interval
from .holm import holm
from .interval import Interval
from .pairs import pair
from .permutation import paired_test
from .verdict import Verdict, decide


@dataclass(frozen=True)
class Comparison:
    """First minus second over N common questions of C clusters, and the chance `p` of so large a difference without any.

    `seeds`: trainings of either side. `p_adjusted`: Holm's, among the `comparisons` of one table (`adjusted`).
    `unknown`: questions whose picture is not known, each taken as a cluster of its own.
    """

    difference: Interval
    rows: int
    clusters: int
    seeds: tuple[int, int]
    p: float
    test: str
    unknown: int
    p_adjusted: float
    comparisons: int = 1

    @property
    def verdict(self) -> Verdict:
        """What is said of it: interval and adjusted p together, see `decide`."""
        return decide(self.difference, self.p_adjusted)

    @property
    def notes(self) -> list[str]:
        """What a reader of the interval should know, in sentences."""
        return notes(self.rows, self.clusters, self.seeds, self.unknown)


def compare(first: Sequence[pa.Table], second: Sequence[pa.Table], seed: int, draws: int = DRAWS) -> Comparison:
    """Compare two choices by their EVALS tables, one per seed of training; a question's score is its mean over seeds.

    Raises:
        InputError: no table or question, or the tables were not answered on the same questions of one benchmark; NaN.
        DuplicateRowsError: a question is there twice in one run.
    """
    pairs = pair(first, second)
    difference = paired_interval(pairs.first_SN, pairs.second_TN, pairs.cluster_N, seed, draws)
    tested = paired_test(pairs.first_SN.mean(0), pairs.second_TN.mean(0), pairs.cluster_N, seed, draws)
    sizes = (len(pairs.names_N), pairs.clusters, pairs.seeds)
    return Comparison(difference, *sizes, tested.p, tested.test, pairs.unknown, tested.p)


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons of one table, in order, with Holm's p among all of them."""
    ps = holm([c.p for c in comparisons])
    return [replace(c, p_adjusted=p, comparisons=len(ps)) for c, p in zip(comparisons, ps, strict=True)]


def notes(rows: int, clusters: int, seeds: Sequence[int], unknown: int) -> list[str]:
    """Say what an interval over so many clusters and seeds does not know; empty where there is nothing to say."""
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
    if min(seeds) == 1:
        what = "One training seed" if max(seeds) == 1 else "One training seed on one side"
        said.append(f"{what}: the interval does not hold what another seed would change.")
    return said
