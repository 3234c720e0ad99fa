"""Intervals of whole clusters against a naive loop."""

import numpy as np
import pytest
from vinnow.evaluate.statistics.bootstrap import mean_intervals
from vinnow.store.errors import InputError


def naive(values_N, cluster_N, draws, seed):
    """The oracle: draw clusters, and take the mean of what was drawn."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(cluster_N == c) for c in range(cluster_N.max() + 1)]
    means = []
    for _ in range(draws):
        rows = np.concatenate([members[c] for c in rng.integers(0, len(members), len(members))])
        means.append(values_N[rows].mean())
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("kind", ["right or wrong", "real"])
def test_the_interval_is_that_of_a_loop(kind):
    rng = np.random.default_rng(0)
    cluster = np.r_[np.arange(25), rng.integers(0, 25, 150) ** 2 // 25]
    values = np.clip(rng.random(len(cluster)) + rng.random(25)[cluster], 0, 2) / 2
    if kind == "right or wrong":
        values = (values > 0.5).astype(float)
    (interval,) = mean_intervals(values[:, None], 1, cluster, draws=20_000)
    low, high = naive(values, cluster, 6_000, seed=2)
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_it_is_seeded():
    values = np.random.default_rng(0).random((500, 1))
    assert mean_intervals(values, 5) == mean_intervals(values, 5)
    assert mean_intervals(values, 5) != mean_intervals(values, 6)


def test_one_cluster_has_no_interval():
    assert not mean_intervals(np.ones((1, 2)), seed=0)[0].bounded
    with pytest.raises(InputError, match="at least one row"):
        mean_intervals(np.ones((0, 2)), seed=0)


def test_columns_share_a_draw_and_agree_with_the_loop():
    rng = np.random.default_rng(4)
    values, cluster = rng.random((60, 2)), np.arange(60) // 4
    values[:, 1] = 1 - values[:, 0]
    one, other = mean_intervals(values, 0, cluster, draws=20_000)
    assert (1 - other.high, 1 - other.low) == pytest.approx((one.low, one.high))
    low, high = naive(values[:, 0], cluster, 6_000, seed=5)
    assert (one.low, one.high) == pytest.approx((low, high), abs=0.05 * (high - low))
