"""Greedy diversity against a naive loop, its 2-approximation against the best of all subsets, and what its knobs do."""

from itertools import combinations

import numpy as np
import pytest
from vinnow.select import registry
from vinnow.select.methods.diverse import greedy
from vinnow.select.needs import Needs
from vinnow.select.rows import read_notes
from vinnow.store.errors import InputError


def pick(view, budget, seed=0, **config):
    selector = registry.make("diverse", config)
    return selector.pick(selector.score(view, seed), budget, seed)["sample_id"].to_pylist()


def naive(world, budget, method="k_center", unit=True, step=30):
    """Float64, every distance anew at every pick."""
    order = np.argsort(world.ids)
    rows = [
        v / np.linalg.norm(v) if unit and v.any() else v for v in world.pool["embedding"][step][order].astype(float)
    ]

    def distance(a, b):
        return float(np.linalg.norm(a - b))

    middle = sum(rows) / len(rows)
    chosen = [min(range(len(rows)), key=lambda i: (round(distance(rows[i], middle), 6), i))]
    while len(chosen) < budget:
        best, farthest = -1, -1.0
        for i in range(len(rows)):
            apart = [distance(rows[i], rows[j]) for j in chosen]
            value = round(min(apart) if method == "k_center" else sum(apart), 5)
            if i not in chosen and value > farthest:
                best, farthest = i, value
        chosen.append(best)
    return [int(world.ids[order[i]]) for i in chosen]


@pytest.mark.parametrize("method", ["k_center", "mean_distance"])
@pytest.mark.parametrize("unit", [True, False])
def test_equals_a_naive_loop(small, small_written, method, unit):
    view = small.view(small_written, Needs(("embedding",)))
    assert pick(view, 20, method=method, unit=unit) == naive(small, 20, method, unit)
    assert pick(view, 32, method=method, unit=unit, step=10)[:9] == naive(small, 9, method, unit, 10)


def test_its_radius_is_within_twice_the_best():
    worst = 0.0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(9, 2)).astype(np.float32)
        apart = np.linalg.norm(x[:, None] - x[None], axis=2)
        for k in (1, 2, 3, 4):
            best = min(apart[:, list(c)].min(1).max() for c in combinations(range(9), k))
            order, gap = greedy(x, k, int(rng.integers(9)), "k_center")
            radius = apart[:, order].min(1).max()
            assert len(set(order.tolist())) == k
            assert gap.max() == pytest.approx(radius, rel=1e-4)
            worst = max(worst, radius / best)
    assert 1.2 < worst <= 2.00001


def test_picks_are_nested_and_a_budget_beyond_the_order_is_refused(world, written):
    view = world.view(written, Needs(("embedding",)))
    assert pick(view, 10) == pick(view, 60)[:10]
    assert pick(view, 10, max_picks=10) == pick(view, 10)
    with pytest.raises(InputError, match="above the 10 that `diverse` put in order: give it a larger max_picks"):
        pick(view, 11, max_picks=10)
    # behind the order, by distance from it
    scores = registry.make("diverse", {"max_picks": 10}).score(view, 0)
    group, score = scores["group"].to_numpy(), scores["score"].to_numpy()
    assert sorted(score[group == 0].tolist()) == list(range(-9, 1))
    assert score[view.ids == pick(view, 11)[10]] == pytest.approx(score[group == 1].max(), abs=1e-6)
    assert score[group == 1].max() < -9


def test_equal_rows_come_last_and_zero_rows_are_counted(world, written):
    view = world.view(written, Needs(("embedding",)))
    chosen = pick(view, 90)
    vec = {int(i): tuple(v) for i, v in zip(world.ids, world.pool["embedding"][30])}
    different = len(set(vec.values()))
    assert len({vec[i] for i in chosen[:different]}) == different
    assert chosen[different:] == sorted(chosen[different:])
    assert read_notes(registry.make("diverse").score(view, 0))["zero_rows"] == 2


def test_what_is_drawn_depends_on_the_seed(world, written):
    view = world.view(written, Needs(("embedding",)))
    for config in ({"start": "random"}, {"candidates": 40}):
        assert registry.make("diverse", config).seeded
        assert pick(view, 20, 1, **config) == pick(view, 20, 1, **config) != pick(view, 20, 2, **config)
    assert not registry.make("diverse").seeded
    scores = registry.make("diverse", {"candidates": 40}).score(view, 0)
    assert np.bincount(scores["group"].to_numpy()).tolist() == [40, 0, 50]
    with pytest.raises(InputError, match="above the 40"):
        pick(view, 41, candidates=40)
    with pytest.raises(InputError, match=r"no embeddings at step 7; there are at \[10, 20, 30\]"):
        pick(view, 3, step=7)


def test_blocks_change_nothing(monkeypatch):
    x = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    whole = greedy(x, 60, 3, "k_center")[0]
    monkeypatch.setattr("vinnow.select.methods.diverse.BLOCK", 64)
    assert np.array_equal(greedy(x, 60, 3, "k_center")[0], whole)
