"""McNemar by hand; random signs of clusters against a count of every pattern."""

import itertools
import math

import numpy as np
import pytest
from vinnow.evaluate.statistics.permutation import EXACT, mcnemar_exact, paired_test, sign_flip
from vinnow.store.errors import InputError

MCNEMAR = {
    (0, 0): 1.0,
    (1, 0): 1.0,
    (0, 1): 1.0,
    (10, 2): 0.03857421875000006,
    (2, 10): 0.03857421875000006,
    (5, 5): 1.0,
    (60, 0): 1.73472347597681e-18,
    (137, 98): 0.01301314457338927,
    (2900, 3100): 0.010191041523375612,
    (1000, 0): 1.8665272370065654e-301,
}


def test_mcnemar_by_hand():
    first = [1] * 10 + [0] * 2 + [1] * 5 + [0] * 7
    second = [0] * 10 + [1] * 2 + [1] * 5 + [0] * 7
    tested = mcnemar_exact(np.array(first), np.array(second))
    assert (tested.only_first, tested.only_second) == (10, 2)
    # 2 · (1 + 12 + 66) / 2¹² = 158 / 4096
    assert tested.p == pytest.approx(158 / 4096, rel=1e-12)
    assert mcnemar_exact(np.ones(5), np.ones(5)).p == 1
    assert mcnemar_exact(np.array([1, 0]), np.array([0, 1])).p == 1


def test_mcnemar_holds_at_many_discordant_pairs():
    n = 6000
    first = np.r_[np.ones(n // 2 - 100), np.zeros(n // 2 + 100)]
    tested = mcnemar_exact(first, 1 - first)
    # the normal approximation with continuity correction is good to three digits here
    z = (200 - 1) / math.sqrt(n)
    assert tested.p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)
    assert mcnemar_exact(np.ones(1000), np.zeros(1000)).p == pytest.approx(2 * 0.5**1000, rel=1e-9)


@pytest.mark.parametrize("pairs", MCNEMAR)
def test_mcnemar_is_what_it_was(pairs):
    first = np.r_[np.ones(pairs[0]), np.zeros(pairs[1])]
    tested = mcnemar_exact(first, 1 - first)
    assert (tested.only_first, tested.only_second) == pairs
    assert tested.p == pytest.approx(MCNEMAR[pairs], rel=0, abs=1e-12)
    # small ones too: digit by digit, but for what the logarithms of factorials had lost
    assert tested.p == pytest.approx(MCNEMAR[pairs], rel=1e-10)


def every_pattern(first, second, cluster):
    """The oracle: all signs of all clusters, one by one."""
    sums = {}
    for a, b, c in zip(first, second, cluster, strict=True):
        sums[c] = sums.get(c, 0.0) + a - b
    seen = abs(sum(sums.values()))
    patterns = list(itertools.product([1, -1], repeat=len(sums)))
    hits = [abs(sum(s * d for s, d in zip(p, sums.values(), strict=True))) >= seen - 1e-9 for p in patterns]
    return sum(hits) / len(patterns)


@pytest.mark.parametrize("clusters", [1, 2, 5, EXACT])
def test_few_clusters_are_counted_pattern_by_pattern(clusters):
    rng = np.random.default_rng(clusters)
    cluster = np.r_[np.arange(clusters), rng.integers(0, clusters, 30)]
    first, second = rng.random(len(cluster)).round(2), (rng.random(len(cluster)) * 0.7).round(2)
    tested = sign_flip(first, second, cluster, seed=0)
    assert tested.p == pytest.approx(every_pattern(first, second, cluster), abs=1e-12)
    assert tested == sign_flip(first, second, cluster, seed=9)
    assert "exact" in tested.test


def test_many_clusters_are_drawn_and_agree_with_all_patterns():
    rng = np.random.default_rng(3)
    clusters = EXACT + 2
    cluster = np.r_[np.arange(clusters), rng.integers(0, clusters, 60)]
    first, second = rng.random(len(cluster)), rng.random(len(cluster)) * 0.8
    tested = sign_flip(first, second, cluster, seed=0, draws=100_000)
    assert tested.p == pytest.approx(every_pattern(first, second, cluster), abs=0.005)
    assert "100,000 draws" in tested.test
    assert tested == sign_flip(first, second, cluster, seed=0, draws=100_000)
    assert tested != sign_flip(first, second, cluster, seed=1, draws=100_000)


@pytest.mark.parametrize("parts", [1, 3, 10, 30])
def test_multiples_of_one_number_are_worked_out_whole(parts):
    """Right and wrong, means of three seeds, of ten people, of both: exact, where drawing would not go under 1/10,001."""
    rng = np.random.default_rng(parts)
    clusters = EXACT + 3
    cluster = np.r_[np.arange(clusters), rng.integers(0, clusters, 20)]
    first, second = (rng.integers(0, parts + 1, len(cluster)) / parts for _ in range(2))
    tested = sign_flip(first, second, cluster, seed=0)
    assert tested.p == pytest.approx(every_pattern(first, second, cluster), abs=1e-12)
    assert tested == sign_flip(first, second, cluster, seed=9)
    assert "exact" in tested.test
    for n, b in ((40, 29), (200, 120), (60, 60)):
        right = np.r_[np.ones(b), np.zeros(n - b)]
        assert sign_flip(right, 1 - right, np.arange(n), seed=0).p == pytest.approx(
            max(1e-12, mcnemar_exact(right, 1 - right).p), rel=1e-6
        )


def test_a_p_is_never_0():
    first, second = np.ones(40), np.zeros(40)
    assert sign_flip(first, second, np.arange(40), seed=0).p == pytest.approx(2 * 0.5**40, abs=1e-12)
    assert sign_flip(np.ones(99), np.zeros(99), np.arange(99), seed=0).p > 0
    odd = np.sqrt(np.arange(1, 41))
    assert sign_flip(odd, second, np.arange(40), seed=0, draws=99).p == 1 / 100
    assert sign_flip(np.ones(4), np.ones(4), np.arange(4), seed=0).p == 1


def test_clusters_flip_as_a_whole():
    """Ten questions of one picture that all agree are one coin, not ten."""
    first, second, one = np.ones(10), np.zeros(10), np.zeros(10, int)
    assert sign_flip(first, second, one, seed=0).p == 1
    assert sign_flip(first, second, np.arange(10), seed=0).p == pytest.approx(2 * 0.5**10)


def test_mcnemar_is_for_right_and_wrong_answers_of_one_picture_each():
    first, second = np.r_[np.ones(8), np.zeros(2)], np.zeros(10)
    assert paired_test(first, second, np.arange(10), 0).test == "McNemar, exact"
    assert paired_test(first, second, np.arange(10), 0).p == pytest.approx(2 * 0.5**8)
    assert "signs" in paired_test(first, second, np.arange(10) // 2, 0).test
    assert "signs" in paired_test(first / 2, second, np.arange(10), 0).test
    for bad in (np.ones(3), np.empty(0)):
        with pytest.raises(InputError, match="same samples"):
            sign_flip(bad, np.empty(0), np.empty(0, int), seed=0)
