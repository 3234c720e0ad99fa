"""Average relative performance: by hand, against a naive loop, and never over fewer benchmarks."""

import numpy as np
import pytest
from evals import evals
from scipy import stats
from vinnow.evaluate.statistics.relative import relative_performance
from vinnow.store.errors import InputError


def table(right, n=100, **fields):
    return evals(np.r_[np.ones(right), np.zeros(n - right)], **fields)


def test_by_hand():
    choice = {"pope": [table(40)], "gqa": [table(45)]}
    full = {"gqa": [table(60)], "pope": [table(80)]}
    relative = relative_performance(choice, full)
    assert relative.by_benchmark == {"gqa": 75.0, "pope": 50.0}
    assert relative.average.estimate == 62.5  # and not 85 / 140
    assert relative.average.low < 62.5 < relative.average.high
    same = relative_performance(full, full)
    assert (same.average.estimate, same.average.low, same.average.high) == (100, 100, 100)
    assert relative.notes == ["One training seed: the interval does not hold what another seed would change."]


def test_the_interval_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    clusters = {"pope": np.arange(480) // 6, "gqa": np.arange(360) // 3}

    def side(shares):
        lean = {b: rng.normal(0, 0.2, 120)[c] for b, c in clusters.items()}
        return {b: [(rng.random(len(c)) + lean[b] < s).astype(float) for s in shares] for b, c in clusters.items()}

    choice, full = side([0.5]), side([0.7])

    def loop():
        ratios = []
        for b, cluster in clusters.items():
            c = rng.integers(0, cluster.max() + 1, cluster.max() + 1)
            rows = np.concatenate([np.flatnonzero(cluster == one) for one in c])
            ratios.append(100 * choice[b][0][rows].mean() / full[b][0][rows].mean())
        return np.mean(ratios)

    low, high = np.quantile([loop() for _ in range(800)], [0.025, 0.975])
    tables = [{b: [evals(s, clusters=clusters[b]) for s in runs] for b, runs in one.items()} for one in (choice, full)]
    relative = relative_performance(*tables)
    assert (relative.average.low, relative.average.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_few_seeds_widen_it_as_their_t_does():
    """Pictures all say the same, so that seeds alone differ: means ± t of Satterthwaite's degrees of freedom."""
    one, whole = [0.5, 0.6, 0.55], [0.7, 0.75]
    tables = [{"pope": [evals(np.full(100, s)) for s in shares]} for shares in (one, whole)]
    relative = relative_performance(*tables)
    assert relative.average.estimate == pytest.approx(100 * 0.55 / 0.725)
    parts = [(np.var(one, ddof=1) / 3 / 0.725**2, 2), (np.var(whole, ddof=1) / 2 * (0.55 / 0.725**2) ** 2, 1)]
    variance = sum(v for v, _ in parts)
    freedom = variance**2 / sum(v**2 / f for v, f in parts)
    half = 100 * stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert relative.average.high - relative.average.estimate == pytest.approx(half)
    lone = relative_performance({"pope": tables[0]["pope"][:1]}, tables[1])
    assert lone.average.high - lone.average.low > relative.average.high - relative.average.low
    assert any("One training seed on one side" in note for note in lone.notes)


def test_a_benchmark_is_missing_by_name_and_never_averaged_away():
    both = {"pope": [table(40)], "gqa": [table(45)]}
    with pytest.raises(InputError, match="the choice lacks gqa"):
        relative_performance({"pope": both["pope"]}, both)
    with pytest.raises(InputError, match="the full-data model lacks gqa"):
        relative_performance(both, {"pope": both["pope"]})
    with pytest.raises(InputError, match="there is no benchmark"):
        relative_performance({}, {})


def test_what_has_no_ratio_is_refused_by_name():
    both = {"pope": [table(40)], "gqa": [table(45)]}
    with pytest.raises(InputError, match="scores 0 on gqa"):
        relative_performance(both, both | {"gqa": [table(0)]})
    with pytest.raises(InputError, match="gqa: paired comparison: 100 against 90"):
        relative_performance(both, both | {"gqa": [table(40, 90)]})
    with pytest.raises(InputError, match="other numbers of seeds"):
        relative_performance(both | {"gqa": [table(40)] * 2}, both)


def test_no_interval_is_said():
    one = {"pope": [table(40, clusters=["p"] * 100)], "gqa": [table(45)]}
    relative = relative_performance(one, one)
    assert not relative.average.bounded
    assert any(note.startswith("pope: All questions are about one picture") for note in relative.notes)
    rare = {"pope": [table(1)]}
    relative = relative_performance(rare, rare)
    assert not relative.average.bounded
    assert any("so few right answers" in note for note in relative.notes)
