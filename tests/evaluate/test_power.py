"""Power: by hand, against itself, and against simulated comparisons."""

import numpy as np
import pytest
from evals import alike, evals
from vinnow.evaluate.statistics.compare import adjusted, compare
from vinnow.evaluate.statistics.levels import difference as sure_of
from vinnow.evaluate.statistics.levels import sums_of
from vinnow.evaluate.statistics.permutation import sign_flip
from vinnow.evaluate.statistics.power import Aim, Assumed, design_effect, estimate, needed, seen
from vinnow.evaluate.statistics.verdict import decide
from vinnow.store.errors import InputError


def test_questions_by_hand():
    # (1.95996 · √0.1 + 0.84162 · √(0.1 − 0.0009))² / 0.03² = 869.7
    row = needed(Assumed(0.1), 0.03, 1, Aim())
    assert (row.questions, row.pictures) == (870, 870)
    # 18 a picture, correlation 0.1: v = 0.0991 · 2.7 = 0.26757, with D 0.26757 + 18 · 0.0009 = 0.28377;
    # (1.95996 · √0.28377 + 0.84162 · √0.26757)² / 0.0009 = 2,431.9 → 135.1 pictures of 18
    row = needed(Assumed(0.1, 18, 0.1), 0.03, 1, Aim())
    assert (row.questions, row.pictures) == (136 * 18, 136)
    # Bonferroni is Holm's first step: z 2.63826; (2.63826 · √0.1 + 0.84162 · √0.0991)² / 0.0009 = 1,342.6
    assert needed(Assumed(0.1), 0.03, 1, Aim(comparisons=6)).questions == 1343


def test_seeds_whose_spread_hides_the_difference_are_told():
    assumed = Assumed(0.1, seed_spread=0.01)
    # t of 32 degrees of freedom: 2.03693 + 0.85299; 2 · 0.01² · 2.88992² / 0.01² = 16.7 ≤ 17, and of 30: 16.8 > 16
    hidden = needed(assumed, 0.01, 10, Aim())
    assert (hidden.questions, hidden.pictures, hidden.least_seeds) == (None, None, 17)
    enough = [needed(assumed, 0.01, s, Aim()).questions for s in (17, 30, 1000)]
    assert enough == sorted(enough, reverse=True)
    assert enough[-1] == pytest.approx(needed(Assumed(0.1), 0.01, 1, Aim()).questions, rel=0.02)


@pytest.mark.parametrize("assumed", [Assumed(0.1), Assumed(0.2, 18, 0.2, 0.002), Assumed(0.15, 3, 0.5)], ids=str)
def test_what_is_seen_is_what_was_needed(assumed):
    for difference in (0.01, 0.02, 0.04):
        row = needed(assumed, difference, 5, Aim())
        assert seen(assumed, row.pictures, 5, Aim()) == pytest.approx(difference, rel=0.02)
        assert seen(assumed, row.pictures, 5, Aim()) <= difference + 1e-6
    assert seen(assumed, 3, 5, Aim()) is None


@pytest.mark.parametrize("power", [0.5, 0.8])
def test_a_planted_effect_is_seen_as_often_as_promised(power):
    """2,000 comparisons by the real interval, test and verdict; two standard errors are some two points."""
    odds, correlation, per_picture, runs = (0.05, 0.84, 0.11), 0.15, 6, 2000
    assumed = Assumed(odds[0] + odds[2], per_picture, correlation)
    row = needed(assumed, odds[2] - odds[0], 1, Aim(power=power))
    rng, cluster, told = np.random.default_rng(0), np.repeat(np.arange(row.pictures), per_picture), 0
    for run in range(runs):
        difference = alike((row.pictures, per_picture), odds, correlation, rng).ravel()
        first, second = (difference > 0).astype(float), (difference < 0).astype(float)
        p = sign_flip(first, second, cluster, run, draws=999).p
        if p < 0.05:  # else no interval is needed
            sure = sure_of(sums_of(first[None], cluster), sums_of(second[None], cluster), None)
            told += decide(sure.interval(difference.mean()), p) == "better"
    assert told / runs == pytest.approx(power, abs=0.03)


def test_two_finished_choices_say_what_is_to_be_assumed():
    rng = np.random.default_rng(0)
    sizes = np.where(np.arange(900) % 3, 4, 10)
    difference = np.concatenate([alike((1, n), (0.1, 0.8, 0.1), 0.3, rng).ravel() for n in sizes])
    cluster = np.repeat(np.arange(900), sizes)
    first, second = ((difference == sign).astype(float) for sign in (1, -1))
    estimated = estimate([evals(first, clusters=cluster)], [evals(second, clusters=cluster)])
    assert (estimated.questions, estimated.pictures, estimated.assumed.seed_spread) == (5400, 900, None)
    assert estimated.assumed.disagree == pytest.approx(0.2, abs=0.02)
    assert estimated.assumed.per_picture == pytest.approx((300 * 100 + 600 * 16) / 5400)
    assert estimated.assumed.correlation == pytest.approx(0.3, abs=0.06)
    # against simulated means: the design effect is the ratio of variances
    means = [
        np.mean(rng.choice([-1, 0, 1], size=(900, 1), p=(0.1, 0.8, 0.1))[:, 0] @ sizes) / 5400 for _ in range(3000)
    ]
    own = np.repeat(rng.choice([-1, 0, 1], size=900, p=(0.1, 0.8, 0.1)), sizes).astype(float)
    assert design_effect(own, cluster)[0] == pytest.approx(np.var(means) / (0.2 / 5400), rel=0.15)


def test_the_spread_over_seeds_is_the_pooled_one():
    def runs(rights):
        return [evals(np.r_[np.ones(n), np.zeros(100 - n)]) for n in rights]

    estimated = estimate(runs([50, 54]), runs([40, 46, 43]))
    expected = np.sqrt((np.var([0.5, 0.54]) * 2 + np.var([0.4, 0.46, 0.43]) * 3) / 3)
    assert estimated.assumed.seed_spread == pytest.approx(expected)
    assert estimated.seeds == (2, 3)


def test_what_is_no_plan_is_refused():
    for bad in ({"disagree": 0}, {"disagree": 1.2}, {"per_picture": 0.5}, {"correlation": 2}, {"seed_spread": -1}):
        with pytest.raises(InputError):
            Assumed(**({"disagree": 0.1} | bad))
    for bad in ({"alpha": 0}, {"power": 1}, {"comparisons": 0}, {"power": 0.01}):
        with pytest.raises(InputError):
            Aim(**bad)
    with pytest.raises(InputError, match="10 % is less"):
        needed(Assumed(0.1), 0.2, 1, Aim())
    with pytest.raises(InputError, match="one seed or more"):
        needed(Assumed(0.1), 0.02, 0, Aim())
    with pytest.raises(InputError, match="never differ"):
        estimate([evals([1, 0])], [evals([1, 0])])
    with pytest.raises(InputError, match="one picture"):
        estimate([evals([1, 0], clusters="pp")], [evals([0, 0], clusters="pp")])


def test_what_a_comparison_could_have_told_is_what_a_plan_says():
    """The smallest difference by the standard error of finished answers, against the plan made of the same answers."""
    rng, pictures = np.random.default_rng(0), 600
    gap = alike((pictures, 6), (0.06, 0.87, 0.07), 0.15, rng).ravel()
    cluster, sides = np.repeat(np.arange(pictures), 6), []
    for sign in (1, -1):
        sides.append([evals((gap == sign).astype(float), clusters=cluster)])
    told = compare(*sides, seed=0)
    planned = estimate(*sides).assumed
    assert told.detectable == pytest.approx(seen(planned, pictures, 1, Aim()), rel=0.03)
    many = adjusted([told] * 12)[0]
    assert many.detectable == pytest.approx(seen(planned, pictures, 1, Aim(comparisons=12)), rel=0.03)
    assert many.detectable > 1.25 * told.detectable


def test_what_three_seeds_could_have_told_is_what_a_plan_says():
    """The same with seeds: of flat pictures, whose level is nothing, on both sides' degrees of freedom."""
    sides = [[evals(np.r_[np.ones(n), np.zeros(4000 - n)], clusters=np.arange(4000)) for n in rights]
             for rights in ((2400, 2440, 2480), (2000, 2040, 2080))]  # fmt: skip
    told = compare(*sides, seed=0)
    assert told.sure.seeds.variance == pytest.approx(2 * 0.01**2 / 3)
    smallest = told.sure.smallest(0.05, 0.8)
    # t of 4 degrees of freedom: 2.77645 and 0.94096
    own = np.sqrt(told.sure.pictures.variance)
    of_level, of_power = (
        np.hypot(t * 0.01 * np.sqrt(2 / 3), z * own) for t, z in ((2.77645, 1.96054), (0.94096, 0.84174))
    )
    assert smallest == pytest.approx(of_level + of_power, rel=1e-3)
