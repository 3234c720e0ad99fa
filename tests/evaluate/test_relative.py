"""Average relative performance: by hand, against a naive loop, and never over fewer benchmarks."""

import numpy as np
import pytest
from evals import evals
from vinnow.evaluate.statistics.relative import relative_performance
from vinnow.store.errors import InputError


def table(right, n=100, **fields):
    return evals(np.r_[np.ones(right), np.zeros(n - right)], **fields)


def test_by_hand():
    choice = {"pope": [table(40)], "gqa": [table(45)]}
    full = {"gqa": [table(60)], "pope": [table(80)]}
    relative = relative_performance(choice, full, seed=0)
    assert relative.by_benchmark == {"gqa": 75.0, "pope": 50.0}
    assert relative.average.estimate == 62.5  # and not 85 / 140
    assert relative.average.low < 62.5 < relative.average.high
    same = relative_performance(full, full, seed=0)
    assert (same.average.estimate, same.average.low, same.average.high) == (100, 100, 100)
    assert relative.notes == ["One training seed: the interval does not hold what another seed would change."]


def test_the_interval_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    clusters = {"pope": np.arange(120) // 6, "gqa": np.arange(90) // 3}

    def side(shares):
        lean = {b: rng.normal(0, 0.2, 60)[c] for b, c in clusters.items()}
        return {b: [(rng.random(len(c)) + lean[b] < s).astype(float) for s in shares] for b, c in clusters.items()}

    choice, full = side([0.5, 0.6, 0.55]), side([0.7, 0.75])

    def loop():
        ours, theirs = rng.integers(0, 3, 2), rng.integers(0, 2, 1)
        ratios = []
        for b, cluster in clusters.items():
            c = rng.integers(0, cluster.max() + 1, cluster.max() + 1)
            rows = np.concatenate([np.flatnonzero(cluster == one) for one in c])
            tops = np.mean([choice[b][s][rows].mean() for s in ours])
            ratios.append(100 * tops / np.mean([full[b][s][rows].mean() for s in theirs]))
        return np.mean(ratios)

    low, high = np.quantile([loop() for _ in range(3000)], [0.025, 0.975])
    tables = [{b: [evals(s, clusters=clusters[b]) for s in runs] for b, runs in one.items()} for one in (choice, full)]
    relative = relative_performance(*tables, seed=1)
    assert (relative.average.low, relative.average.high) == pytest.approx((low, high), abs=0.06 * (high - low))
    assert relative.notes == []


def test_a_benchmark_is_missing_by_name_and_never_averaged_away():
    both = {"pope": [table(40)], "gqa": [table(45)]}
    with pytest.raises(InputError, match="the choice lacks gqa"):
        relative_performance({"pope": both["pope"]}, both, seed=0)
    with pytest.raises(InputError, match="the full-data model lacks gqa"):
        relative_performance(both, {"pope": both["pope"]}, seed=0)
    with pytest.raises(InputError, match="there is no benchmark"):
        relative_performance({}, {}, seed=0)


def test_what_has_no_ratio_is_refused_by_name():
    both = {"pope": [table(40)], "gqa": [table(45)]}
    with pytest.raises(InputError, match="scores 0 on gqa"):
        relative_performance(both, both | {"gqa": [table(0)]}, seed=0)
    with pytest.raises(InputError, match="gqa: paired comparison: 100 against 90"):
        relative_performance(both, both | {"gqa": [table(40, 90)]}, seed=0)
    with pytest.raises(InputError, match="other numbers of seeds"):
        relative_performance(both | {"gqa": [table(40)] * 2}, both, seed=0)


def test_no_interval_is_said():
    one = {"pope": [table(40, clusters=["p"] * 100)], "gqa": [table(45)]}
    relative = relative_performance(one, one, seed=0)
    assert not relative.average.bounded
    assert any(note.startswith("pope: All questions are about one picture") for note in relative.notes)
    rare = {"pope": [table(1)]}
    relative = relative_performance(rare, rare, seed=0)
    assert not relative.average.bounded
    assert any("no right answer" in note for note in relative.notes)
