"""Statistics against values worked out by hand or by brute force."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from vinnow.evaluate.statistics import (
    compare,
    mcnemar_exact,
    mean_scores,
    paired_bootstrap,
    sign_flip,
    wilson_interval,
)
from vinnow.store.errors import DuplicateRowsError, InputError
from vinnow.store.tables import EVALS


def evals(scores, samples=None, run="r"):
    n = len(scores)
    samples = samples or [str(i) for i in range(n)]
    table = pa.table(
        {
            "run": [run] * n,
            "benchmark": ["b"] * n,
            "task": ["t"] * n,
            "sample": samples,
            "correct": [s == 1 for s in scores],
            "score": [float(s) for s in scores],
            "answer": [""] * n,
            "reference": [""] * n,
        }
    )
    return table.cast(EVALS)


def test_wilson_by_hand():
    # p = 0.8, n = 10: the two roots of (p̂ - p)² = z² p (1 - p) / n
    interval = wilson_interval(8, 10)
    for root in (interval.low, interval.high):
        assert (0.8 - root) ** 2 == pytest.approx(1.959963985**2 * root * (1 - root) / 10, rel=1e-6)
    assert interval.low < 0.8 < interval.high
    # Newcombe 1998: 81 of 263 → 0.2553 to 0.3662
    assert wilson_interval(81, 263).low == pytest.approx(0.2553, abs=5e-5)
    assert wilson_interval(81, 263).high == pytest.approx(0.3662, abs=5e-5)
    assert wilson_interval(0, 20).low == 0
    assert wilson_interval(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert wilson_interval(20, 20).high == 1
    for bad in ((1, 0), (3, 2), (-1, 5)):
        with pytest.raises(InputError, match="0 ≤ correct ≤ rows"):
            wilson_interval(*bad)


def test_mcnemar_by_hand():
    first = [1] * 10 + [0] * 2 + [1] * 5 + [0] * 7
    second = [0] * 10 + [1] * 2 + [1] * 5 + [0] * 7
    mcnemar = mcnemar_exact(np.array(first), np.array(second))
    assert (mcnemar.only_first, mcnemar.only_second) == (10, 2)
    # 2 · (1 + 12 + 66) / 2¹² = 158 / 4096
    assert mcnemar.p == pytest.approx(158 / 4096, rel=1e-12)
    assert mcnemar_exact(np.ones(5), np.ones(5)).p == 1
    assert mcnemar_exact(np.array([1, 0]), np.array([0, 1])).p == 1


def test_mcnemar_holds_at_many_discordant_pairs():
    n = 6000
    first = np.r_[np.ones(n // 2 - 100), np.zeros(n // 2 + 100)]
    mcnemar = mcnemar_exact(first, 1 - first)
    # the normal approximation with continuity correction is good to three digits here
    z = (200 - 1) / math.sqrt(n)
    assert mcnemar.p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)
    assert mcnemar_exact(np.ones(1000), np.zeros(1000)).p == pytest.approx(2 * 0.5**1000, rel=1e-9)


# what the formulas gave that stood here before SciPy's: (correct, rows, confidence) → bounds, (only first, only second) → p
WILSON = {
    (0, 1, 0.95): (0.0, 0.7934506856227626),
    (1, 1, 0.95): (0.20654931437723745, 1.0),
    (0, 20, 0.99): (0.0, 0.24910540109875334),
    (20, 20, 0.9): (0.8808421626390356, 1.0),
    (1, 20, 0.95): (0.008881448800795375, 0.236131193446742),
    (8, 10, 0.95): (0.49016247153664183, 0.9433178485456247),
    (81, 263, 0.9): (0.2633136171884814, 0.35656634960848815),
    (3987, 7135, 0.95): (0.5472448960636475, 0.5702811765966914),
    (199590, 665298, 0.99): (0.2985557340939616, 0.30145005867891),
    (665297, 665298, 0.95): (0.999991485168294, 0.9999997346683925),
}
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


@pytest.mark.parametrize("asked", WILSON)
def test_wilson_is_what_it_was(asked):
    interval = wilson_interval(*asked)
    assert (interval.low, interval.high) == pytest.approx(WILSON[asked], rel=0, abs=1e-12)
    assert interval.estimate == asked[0] / asked[1]
    assert interval.low <= interval.estimate <= interval.high


@pytest.mark.parametrize("pairs", MCNEMAR)
def test_mcnemar_is_what_it_was(pairs):
    first = np.r_[np.ones(pairs[0]), np.zeros(pairs[1])]
    mcnemar = mcnemar_exact(first, 1 - first)
    assert (mcnemar.only_first, mcnemar.only_second) == pairs
    assert mcnemar.p == pytest.approx(MCNEMAR[pairs], rel=0, abs=1e-12)
    # small ones too: digit by digit, but for what the logarithms of factorials had lost
    assert mcnemar.p == pytest.approx(MCNEMAR[pairs], rel=1e-10)


def test_the_bootstrap_has_the_distribution_of_resampled_pairs():
    first, second = np.array([1, 1, 0, 1]), np.array([0, 1, 1, 0])
    interval = paired_bootstrap(first, second, seed=0, draws=200_000)
    assert interval.estimate == 0.25
    every = [np.mean(d) for d in itertools.product([1, 0, -1, 1], repeat=4)]
    low, high = np.quantile(every, [0.025, 0.975])
    assert (interval.low, interval.high) == (low, high)


def test_the_bootstrap_agrees_with_resampling_rows_for_real_scores():
    rng = np.random.default_rng(1)
    first, second = rng.random(300), rng.random(300)
    difference = first - second
    draws = difference[rng.integers(0, 300, (20_000, 300))].mean(1)
    interval = paired_bootstrap(first, second, seed=2, draws=20_000)
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(draws, [0.025, 0.975]), atol=0.003)


def test_the_bootstrap_is_seeded_fast_and_pairs():
    rng = np.random.default_rng(0)
    first = (rng.random(665_298) < 0.6).astype(float)
    second = np.where(rng.random(665_298) < 0.01, 1 - first, first)
    interval = paired_bootstrap(first, second, seed=5)
    assert interval == paired_bootstrap(first, second, seed=5)
    assert interval != paired_bootstrap(first, second, seed=6)
    # paired: 1 % of flips; unpaired resampling would give some 0.0033
    assert interval.high - interval.low < 0.0006
    for bad in (np.ones(3), np.empty(0)):
        with pytest.raises(InputError, match="same samples"):
            paired_bootstrap(bad, np.empty(0), seed=0)


def test_compare_pairs_by_sample_not_by_row():
    scores = np.r_[np.ones(60), np.zeros(40)]
    names = [str(i) for i in range(100)]
    order = np.random.default_rng(0).permutation(100)
    shuffled = evals(scores[order], [names[i] for i in order])
    same = compare([evals(scores, names)], [shuffled], seed=0)
    assert (same.difference.estimate, same.difference.low, same.difference.high, same.p) == (0, 0, 0, 1)
    assert same.verdict == "no clear difference"
    worse = compare([evals(np.r_[np.ones(20), np.zeros(80)], names)], [evals(scores, names)], seed=0)
    assert worse.verdict == "worse"
    assert worse.difference.estimate == pytest.approx(-0.4)
    assert worse.p == pytest.approx(2 * 0.5**40, rel=1e-9)
    assert compare([evals(scores)], [evals(np.zeros(100))], seed=0).verdict == "better"


def test_seeds_are_averaged_sample_by_sample():
    names, scores = mean_scores([evals([1, 0, 1, 0]), evals([1, 1, 0, 0])])
    assert dict(zip(names.tolist(), scores.tolist(), strict=True)) == {"0": 1, "1": 0.5, "2": 0.5, "3": 0}
    comparison = compare([evals([1, 0]), evals([1, 1])], [evals([0, 0])], seed=0)
    assert comparison.difference.estimate == pytest.approx(0.75)
    assert comparison.p == pytest.approx(0.5, abs=0.03)  # the signs of two samples


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_few_samples_that_all_agree_settle_nothing(n):
    """3:0 is p = 0.25, whatever a bootstrap of three thinks of it."""
    first, second = np.r_[np.ones(n), np.zeros(50)], np.zeros(50 + n)
    comparison = compare([evals(first)], [evals(second)], seed=0)
    assert comparison.p == pytest.approx(2 * 0.5**n)
    assert comparison.verdict == "no clear difference"
    several = compare([evals(first), evals(first)], [evals(second)], seed=0)
    assert several.p == pytest.approx(min(1, 2 * 0.5**n), abs=0.02)
    assert several.verdict == "no clear difference"


def test_verdict_interval_and_p_never_contradict_each_other():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(150):
        shift, n = rng.choice([-0.3, -0.1, 0, 0.1, 0.3]), int(rng.integers(5, 80))
        second = (rng.random(n) < 0.5).astype(float)
        first = (rng.random(n) < 0.5 + shift).astype(float)
        comparison = compare([evals(first)], [evals(second)], seed=0, draws=500)
        clear = comparison.p < 0.05 and not comparison.difference.low <= 0 <= comparison.difference.high
        assert (comparison.verdict != "no clear difference") == clear
        assert comparison.verdict != ("worse" if comparison.difference.estimate > 0 else "better")
        seen.add(comparison.verdict)
    assert seen == {"better", "worse", "no clear difference"}


def test_random_signs_are_those_of_all_sign_patterns():
    first, second = np.array([0.5, 1, 0.25, 0, 1, 1]), np.array([0, 0, 0.5, 0, 0.5, 0])
    difference = first - second
    every = [abs(np.dot(s, difference)) for s in itertools.product([1, -1], repeat=6)]
    expected = np.mean([e >= abs(difference.sum()) - 1e-12 for e in every])
    assert sign_flip(first, second, seed=0, draws=100_000) == pytest.approx(expected, abs=0.005)
    assert sign_flip(np.ones(4), np.ones(4), seed=0) == 1


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="3 against 3 samples, 2 in common"):
        compare([evals([1, 0, 1])], [evals([1, 0, 1], ["0", "1", "x"])], seed=0)
    with pytest.raises(DuplicateRowsError, match="twice"):
        compare([evals([1, 0], ["a", "a"])], [evals([1, 0])], seed=0)
    with pytest.raises(InputError, match="other samples"):
        mean_scores([evals([1, 0]), evals([1])])
    with pytest.raises(InputError, match="at least one"):
        compare([], [evals([1])], seed=0)
