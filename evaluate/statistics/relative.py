"""Average relative performance: what share of the full-data model's scores a choice keeps, over several benchmarks.

As papers on data selection define it: 100 × mean over benchmarks of (score of the choice ÷ score of the full-data model).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...store.arrays import Array
from ...store.errors import InputError
from .bootstrap import DRAWS, percentile, resampled_sums, seed_weights
from .compare import notes
from .interval import Interval
from .pairs import Pairs, pair

# EVALS tables of one choice by the name of the benchmark, one per seed of training
ByBenchmark = Mapping[str, Sequence[pa.Table]]


@dataclass(frozen=True)
class Relative:
    """Per cent of the full-data model: the mean over benchmarks with its interval, and each benchmark's own.

    The interval draws clusters (pictures) of each benchmark, the same for both models, and seeds of training, the same for
    all benchmarks. Benchmarks are taken as they are: it says nothing of others.
    """

    average: Interval
    by_benchmark: dict[str, float]
    notes: list[str]


def relative_performance(choice: ByBenchmark, full: ByBenchmark, seed: int, draws: int = DRAWS) -> Relative:
    """Return a choice's average performance relative to the full-data model's.

    Raises:
        InputError: a benchmark is missing on one side, was asked with other questions, is scored 0 by the full-data model
            (each by name), or a side's benchmarks are of other numbers of seeds.
    """
    _refuse_missing(choice, full)
    pairs = {name: _pair(name, choice[name], full[name]) for name in sorted(full)}
    ours, theirs = (_seeds(pairs, side) for side in (0, 1))
    means = {name: (p.first_SN.mean(), p.second_TN.mean()) for name, p in pairs.items()}
    if zero := [name for name, (_, whole) in means.items() if whole <= 0]:
        raise InputError(f"the full-data model scores 0 on {', '.join(zero)}: there is nothing to be relative to.")
    by_benchmark = {name: float(100 * mine / whole) for name, (mine, whole) in means.items()}
    estimate = float(np.mean(list(by_benchmark.values())))
    told = [
        f"{name}: {note}" if name else note
        for name, p in pairs.items()
        for note in notes(len(p.names_N), p.clusters, (2, 2), p.unknown)
    ]
    told += notes(2, 20, (ours, theirs), 0)
    if min(p.clusters for p in pairs.values()) == 1:
        return Relative(Interval.unknown(estimate), by_benchmark, told)
    rng = np.random.default_rng([seed, 1])
    weights = seed_weights(ours, rng, draws), seed_weights(theirs, rng, draws)
    ratios_BR = np.stack([_ratios(p, weights, [seed, 2, b], draws) for b, p in enumerate(pairs.values())])
    if not np.isfinite(ratios_BR).all():
        told.append("Draws in which the full-data model has no right answer: there is no interval.")
        return Relative(Interval.unknown(estimate), by_benchmark, told)
    return Relative(percentile(estimate, 100 * ratios_BR.mean(0)), by_benchmark, told)


def _ratios(pairs: Pairs, weights: tuple[Array, Array], seed: list[int], draws: int) -> Array:
    """Return [R] ratios of one benchmark's mean scores."""
    sums_RK = resampled_sums(np.concatenate([pairs.first_SN, pairs.second_TN]).T, pairs.cluster_N, seed, draws)[:, 1:]
    s = len(pairs.first_SN)
    ours_R, theirs_R = (sums_RK[:, :s] * weights[0]).sum(1), (sums_RK[:, s:] * weights[1]).sum(1)
    return np.divide(ours_R, theirs_R, out=np.full(draws, np.inf), where=theirs_R > 0)


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
