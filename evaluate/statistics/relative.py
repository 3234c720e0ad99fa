"""Average relative performance: what share of the full-data model's scores a choice keeps, over several benchmarks.

As papers on data selection define it: 100 × mean over benchmarks of (score of the choice ÷ score of the full-data model).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...store.errors import InputError
from .compare import notes
from .interval import Interval
from .levels import Spread, Sums, mean, ratio, sums_of
from .pairs import Pairs, pair

# a divisor nearer to 0 than so many standard errors leaves a ratio without an interval (Fieller 1954)
FAR = 3.0
# EVALS tables of one choice by the name of the benchmark, one per seed of training
ByBenchmark = Mapping[str, Sequence[pa.Table]]


@dataclass(frozen=True)
class Relative:
    """Per cent of the full-data model: the mean over benchmarks with its interval, and each benchmark's own.

    The interval is that of `levels.ratio`: pictures of each benchmark, the same for both models, and seeds of training, the
    same for all benchmarks. Benchmarks are taken as they are: it says nothing of others.
    """

    average: Interval
    by_benchmark: dict[str, float]
    notes: list[str]


def relative_performance(choice: ByBenchmark, full: ByBenchmark, spread: Spread | None = None) -> Relative:
    """Return a choice's average performance relative to the full-data model's. `spread`: as `levels.ratio` takes it.

    Raises:
        InputError: a benchmark is missing on one side, was asked with other questions, is scored 0 by the full-data model
            (each by name), or a side's benchmarks are of other numbers of seeds.
    """
    _refuse_missing(choice, full)
    pairs = {name: _pair(name, choice[name], full[name]) for name in sorted(full)}
    ours, theirs = (_seeds(pairs, side) for side in (0, 1))
    told = [
        f"{name}: {note}" if name else note
        for name, p in pairs.items()
        for note in notes(len(p.names_N), p.clusters, (2, 2), p.unknown)
    ]
    sums = {name: (sums_of(p.first_SN, p.cluster_N), sums_of(p.second_TN, p.cluster_N)) for name, p in pairs.items()}
    return relative_of(sums, told + notes(2, 20, (ours, theirs), 0), spread)


def relative_of(sums: Mapping[str, tuple[Sums, Sums]], told: list[str], spread: Spread | None = None) -> Relative:
    """Return the same of sums by cluster; `told`: what is to be known of them.

    Raises:
        InputError: the full-data model scores 0 on a benchmark; names it.
    """
    if zero := [name for name, (_, whole) in sums.items() if whole.mean <= 0]:
        raise InputError(f"the full-data model scores 0 on {', '.join(zero)}: there is nothing to be relative to.")
    by_benchmark = {name: 100 * mine.mean / whole.mean for name, (mine, whole) in sums.items()}
    estimate = float(np.mean(list(by_benchmark.values())))
    if any(len(w.sizes_C) > 1 and w.mean < FAR * mean(w, None).error for _, w in sums.values()):
        few = "The full-data model has so few right answers that a share of them has no interval."
        return Relative(Interval.unknown(estimate), by_benchmark, [*told, few])
    sure = ratio([mine for mine, _ in sums.values()], [whole for _, whole in sums.values()], spread)
    share = sure.interval(estimate / 100)
    low = max(0.0, 100 * share.low) if share.bounded else share.low
    return Relative(Interval(estimate, low, 100 * share.high), by_benchmark, told)


def _pair(name: str, choice: Sequence[pa.Table], full: Sequence[pa.Table]) -> Pairs:
    try:
        return pair(choice, full)
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


def _refuse_missing(choice: ByBenchmark, full: ByBenchmark) -> None:
    sides = (("the choice", full.keys() - choice.keys()), ("the full-data model", choice.keys() - full.keys()))
    lacking = [f"{side} lacks {', '.join(sorted(names))}" for side, names in sides if names]
    if lacking or not full:
        raise InputError(
            f"average relative performance: {'; '.join(lacking) or 'there is no benchmark'}. An average over fewer "
            "would be another number: evaluate both on all of them, or leave a benchmark out of both."
        )


def _seeds(pairs: dict[str, Pairs], side: int) -> int:
    counts = {name: p.seeds[side] for name, p in pairs.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"one choice has other numbers of seeds on its benchmarks: {counts}. Give it as many on each.")
    return next(iter(counts.values()))
