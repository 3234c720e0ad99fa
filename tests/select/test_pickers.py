"""Allocation and tie rules against brute force."""

import numpy as np
import pytest
from vinnow.select.pickers import (
    per_group,
    proportional,
    top_k,
    uniform,
    votes,
    water_fill,
    weighted,
)
from vinnow.store.errors import InputError

RNG = np.random.default_rng(0)
SIZES = [np.sort(RNG.integers(1, 12, RNG.integers(1, 9)))[:: RNG.choice([1, -1])] for _ in range(60)]


def published_water_fill(sizes, budget):
    """The loop of XMAS's release: smallest group first, each takes its even share of what is left."""
    quota, left = [0] * len(sizes), budget
    order = sorted(range(len(sizes)), key=lambda g: sizes[g])
    for j, g in enumerate(order):
        quota[g] = min(int(sizes[g]), left // (len(order) - j))
        left -= quota[g]
    return quota


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_water_filling_is_even_exact_and_the_published_loop(sizes):
    for budget in range(1, int(sizes.sum()) + 1):
        quota = water_fill(sizes, budget)
        assert quota.sum() == budget
        assert (quota <= sizes).all()
        assert quota.tolist() == published_water_fill(sizes, budget)
        # no row could move from a fuller group to an emptier one that still has rows
        assert quota.max() - min(quota[quota < sizes], default=quota.max()) <= 1


def test_water_filling_leaves_empty_groups_empty():
    assert water_fill(np.array([0, 5, 0, 2]), 4).tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize("sizes", SIZES[:20], ids=str)
def test_proportional_shares_are_within_a_row_of_exact(sizes):
    for budget in range(1, int(sizes.sum()) + 1):
        quota = proportional(sizes, budget)
        assert quota.sum() == budget
        assert (quota <= sizes).all()
        assert (np.abs(quota - sizes * budget / sizes.sum()) < 1).all()


def test_largest_remainders_go_first_and_ties_to_the_earlier_group():
    assert proportional(np.array([1, 1, 1]), 2).tolist() == [1, 1, 0]
    # exact shares 0.7, 2.1, 4.2: the first group has the largest remainder
    assert proportional(np.array([10, 30, 60]), 7).tolist() == [1, 2, 4]
    # exact shares 30/27, 54/27, 66/27, 12/27: the last two tie at a remainder of 12, which floats do not see
    assert proportional(np.array([5, 9, 11, 2]), 6).tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("budget", [0, -3, 11])
def test_every_picker_refuses_a_budget_that_does_not_fit(budget):
    ids, score = np.arange(10, dtype=np.uint64), np.ones(10)
    calls = (
        lambda: top_k(ids, score, budget),
        lambda: proportional(np.array([4, 6]), budget),
        lambda: water_fill(np.array([4, 6]), budget),
        lambda: weighted(ids, score, budget, 0),
        lambda: votes(ids, score[:, None], budget, 0.5),
    )
    for call in calls:
        with pytest.raises(InputError, match="budget"):
            call()


def test_top_k_breaks_ties_by_id_above_2_to_63():
    ids = np.array([2**63 + 2, 2**63 + 1, 7, 2**64 - 1], np.uint64)
    assert top_k(ids, np.array([1.0, 1, 0, 1]), 2).tolist() == [1, 0]


def test_per_group_takes_each_quota_and_every_prefix_is_balanced():
    ids = np.arange(60, dtype=np.uint64)
    group = np.repeat([7, -1, 3], [30, 20, 10])
    score = RNG.integers(0, 4, 60).astype(float)
    quota = {7: 12, -1: 6, 3: 6}
    chosen = per_group(ids, score, group, quota)
    for g, wanted in quota.items():
        rows = sorted(np.flatnonzero(group == g), key=lambda i: (-score[i], ids[i]))[:wanted]
        assert [i for i in chosen if group[i] == g] == rows
    assert np.bincount(group[chosen[:12]] + 1, minlength=9)[[8, 0, 4]].tolist() == [6, 3, 3]


@pytest.mark.parametrize("quota", [{0: 4}, {0: 2, 5: 1}])
def test_per_group_refuses_quotas_that_do_not_fit(quota):
    with pytest.raises(InputError, match="quotas"):
        per_group(np.arange(3, dtype=np.uint64), np.ones(3), np.zeros(3, int), quota)


def test_weighted_draws_follow_the_weights_and_never_take_a_zero():
    ids = np.arange(4, dtype=np.uint64)
    weight = np.array([1.0, 2.0, 5.0, 0.0])
    drawn = np.array([ids[weighted(ids, weight, 1, seed)][0] for seed in range(4000)])
    counts = np.bincount(drawn.astype(int), minlength=4)
    # four standard deviations of the rarest
    np.testing.assert_allclose(counts / 4000, weight / 8, atol=4 * (0.125 * 0.875 / 4000) ** 0.5)
    assert counts[3] == 0
    order = np.array([2, 0, 3, 1])
    assert ids[weighted(ids, weight, 2, 9)].tolist() == ids[order][weighted(ids[order], weight[order], 2, 9)].tolist()
    with pytest.raises(InputError, match="weight above 0"):
        weighted(ids, weight, 4, 0)
    with pytest.raises(InputError, match="negative"):
        weighted(ids, np.array([1, -1, 1, 1.0]), 1, 0)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_votes_are_the_published_percentile_with_ties_by_mean_rank_then_id(share):
    ids = RNG.permutation(40).astype(np.uint64)
    scores = np.round(RNG.normal(size=(40, 6)), 1)  # rounded: equal scores at and off the threshold
    count = [sum(scores[i, t] >= np.percentile(scores[:, t], 100 - 100 * share) for t in range(6)) for i in range(40)]
    rank = [np.mean([(scores[:, t] > scores[i, t]).sum() for t in range(6)]) for i in range(40)]
    expected = sorted(range(40), key=lambda i: (-count[i], round(rank[i], 9), ids[i]))
    chosen, got = votes(ids, scores, 25, share)
    assert got.tolist() == count
    assert chosen.tolist() == expected[:25]


def test_hashes_are_uniform_by_id_and_apart_by_seed_and_salt():
    ids = np.arange(20_000, dtype=np.uint64)
    u = uniform(ids, 0, "a")
    assert u.min() > 0
    assert u.max() < 1
    # Kolmogorov-Smirnov at 1 in 1000
    assert np.abs(np.sort(u) - (np.arange(20_000) + 0.5) / 20_000).max() < 1.95 / 20_000**0.5
    assert np.array_equal(uniform(ids[::-1], 0, "a")[::-1], u)
    for other in (uniform(ids, 1, "a"), uniform(ids, 0, "b"), uniform(ids, -1, "a")):
        assert abs(np.corrcoef(u, other)[0, 1]) < 4 / 20_000**0.5
