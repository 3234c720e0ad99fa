"""Intervals of whole clusters and seeds against a naive loop, and what they are for: two runs of one model."""

import itertools
import time

import numpy as np
import pytest
from evals import alike
from vinnow.evaluate.statistics.bootstrap import mean_intervals, paired_interval, seed_weights, share_interval
from vinnow.evaluate.statistics.permutation import mcnemar_exact, sign_flip
from vinnow.store.errors import InputError


def naive(first_SN, second_TN, cluster_N, draws, seed):
    """The oracle: draw S - 1 of S seeds of each side, then clusters, and take the means of what was drawn."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(cluster_N == c) for c in range(cluster_N.max() + 1)]
    means = []
    for _ in range(draws):
        sides = []
        for scores in (first_SN, second_TN):
            s = len(scores)
            sides.append(scores[rng.integers(0, s, s - 1)] if s > 1 else scores)
        rows = np.concatenate([members[c] for c in rng.integers(0, len(members), len(members))])
        means.append(sides[0][:, rows].mean() - sides[1][:, rows].mean())
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("seeds", [(1, 1), (3, 1), (3, 4)], ids=str)
@pytest.mark.parametrize("kind", ["right or wrong", "real"])
def test_the_interval_is_that_of_a_loop(seeds, kind):
    rng = np.random.default_rng(0)
    cluster = np.r_[np.arange(25), rng.integers(0, 25, 150) ** 2 // 25]
    lean = rng.random(25)[cluster]
    first, second = (
        np.clip(rng.random((s, len(cluster))) + lean + rng.normal(0, 0.1, (s, 1)), 0, 2) / 2 for s in seeds
    )
    if kind == "right or wrong":
        first, second = (first > 0.5).astype(float), (second > 0.55).astype(float)
    interval = paired_interval(first, second, cluster, seed=1, draws=20_000)
    low, high = naive(first, second, cluster, 6_000, seed=2)
    assert interval.estimate == pytest.approx(first.mean() - second.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_single_questions_are_resampled_as_pairs():
    first, second = np.array([[1, 1, 0, 1]]), np.array([[0, 1, 1, 0]])
    interval = paired_interval(first, second, np.arange(4), seed=0, draws=200_000)
    assert interval.estimate == 0.25
    every = [np.mean(d) for d in itertools.product([1, 0, -1, 1], repeat=4)]
    assert (interval.low, interval.high) == tuple(np.quantile(every, [0.025, 0.975]))


def test_it_is_seeded_fast_and_pairs():
    rng = np.random.default_rng(0)
    first = (rng.random((1, 665_298)) < 0.6).astype(float)
    second = np.where(rng.random((1, 665_298)) < 0.01, 1 - first, first)
    cluster = np.arange(665_298)
    interval = paired_interval(first, second, cluster, seed=5)
    assert interval == paired_interval(first, second, cluster, seed=5)
    assert interval != paired_interval(first, second, cluster, seed=6)
    # paired: 1 % of flips; unpaired resampling would give some 0.0033
    assert interval.high - interval.low < 0.0006
    with pytest.raises(InputError, match="same samples"):
        paired_interval(np.ones((1, 3)), np.ones((1, 2)), np.arange(3), seed=0)
    with pytest.raises(InputError, match="same samples"):
        paired_interval(np.ones((1, 0)), np.ones((1, 0)), np.arange(0), seed=0)


def test_ten_thousand_draws_of_pope_take_seconds():
    rng = np.random.default_rng(0)
    first, second = ((rng.random((3, 9000)) < share).astype(float) for share in (0.85, 0.84))
    start = time.process_time()
    paired_interval(first, second, np.arange(9000) // 18, seed=0)
    assert time.process_time() - start < 5


def test_s_minus_1_of_s_seeds_have_the_spread_of_a_mean():
    scores = np.array([0.50, 0.53, 0.61])
    means = (seed_weights(3, np.random.default_rng(0), 200_000) * scores).sum(1)
    assert means.var() == pytest.approx(scores.var(ddof=1) / 3, rel=0.02)
    assert (seed_weights(1, np.random.default_rng(0), 5) == 1).all()


def test_one_cluster_has_no_interval():
    interval = paired_interval(np.ones((1, 9)), np.zeros((1, 9)), np.zeros(9, int), seed=0)
    assert (interval.estimate, interval.bounded) == (1.0, False)
    assert not share_interval(np.ones((2, 9)), np.zeros(9, int), seed=0).bounded
    assert not mean_intervals(np.ones((1, 2)), seed=0)[0].bounded
    with pytest.raises(InputError, match="at least one row"):
        mean_intervals(np.ones((0, 2)), seed=0)


def test_columns_share_a_draw_and_agree_with_the_loop():
    rng = np.random.default_rng(4)
    values, cluster = rng.random((60, 2)), np.arange(60) // 4
    values[:, 1] = 1 - values[:, 0]
    one, other = mean_intervals(values, 0, cluster, draws=20_000)
    assert (1 - other.high, 1 - other.low) == pytest.approx((one.low, one.high))
    low, high = naive(values[:, :1].T, np.zeros((1, 60)), cluster, 6_000, seed=5)
    assert (one.low, one.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_two_runs_of_one_model_cannot_be_told_apart_and_unclustered_they_would_be():
    """300 nulls of 40 pictures with 18 questions that are alike: 5 % at most; three times as many where rows are drawn."""
    rng, alpha, runs = np.random.default_rng(7), 0.05, 300
    cluster, clustered, single, rows, alone = np.repeat(np.arange(40), 18), 0, 0, np.arange(720), 0
    for run in range(runs):
        difference = alike((40, 18), (0.1, 0.8, 0.1), 0.5, rng).ravel()
        first, second = (difference > 0).astype(float), (difference < 0).astype(float)
        drawn = paired_interval(first[None], second[None], cluster, run, draws=1000)
        tested = sign_flip(first, second, cluster, run, draws=999)
        clustered += tested.p < alpha and not drawn.low <= 0 <= drawn.high
        single += mcnemar_exact(first, second).p < alpha
        by_row = paired_interval(first[None], second[None], rows, run, draws=1000)
        alone += not by_row.low <= 0 <= by_row.high
    assert clustered / runs <= alpha
    assert single / runs >= 3 * alpha
    assert alone / runs >= 3 * alpha
