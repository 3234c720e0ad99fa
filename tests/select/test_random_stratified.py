"""Random and stratified against naive loops on 32 rows."""

import numpy as np
import pytest
from vinnow.select import registry
from vinnow.select.needs import Needs
from vinnow.select.pickers import uniform
from vinnow.store.errors import InputError


def pick(view, name, budget, seed=0, **config):
    selector = registry.make(name, config)
    return selector.pick(selector.score(view, seed), budget, seed)["sample_id"].to_pylist()


def draw(ids, seed, salt):
    """Every id's number, one at a time."""
    return {int(i): float(uniform(np.array([i], np.uint64), seed, salt)[0]) for i in ids}


def test_random_is_the_largest_hashes_and_nested(small, small_written):
    view = small.view(small_written, Needs())
    number = draw(small.ids, 5, "random")
    assert pick(view, "random", 9, 5) == sorted(number, key=lambda i: (-number[i], i))[:9]
    assert pick(view, "random", 20, 5)[:9] == pick(view, "random", 9, 5)


def test_random_takes_every_row_equally_often(small, small_written):
    view = small.view(small_written, Needs())
    hits = np.zeros(small.n)
    for seed in range(1500):
        hits += np.isin(view.ids, np.array(pick(view, "random", 8, seed), np.uint64))
    # five standard deviations of a binomial(1500, 1/4)
    assert np.abs(hits - 375).max() < 5 * (1500 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("column", ["source", "task", "has_image"])
def test_stratified_is_largest_remainders_then_the_largest_hashes(small, small_written, column):
    view = small.view(small_written, Needs())
    number = draw(small.ids, 2, "stratified")
    rows = {}
    for i, value in zip(small.ids.tolist(), small.columns[column].tolist(), strict=True):
        rows.setdefault(str(value), []).append(i)
    exact = {v: 11 * len(members) / small.n for v, members in rows.items()}
    quota = {v: int(e) for v, e in exact.items()}
    short = 11 - sum(quota.values())
    for value in sorted(rows, key=lambda v: (-(exact[v] - quota[v]), v))[:short]:
        quota[value] += 1
    expected = {i for v in rows for i in sorted(rows[v], key=lambda i: (-number[i], i))[: quota[v]]}
    assert set(pick(view, "stratified", 11, 2, column=column)) == expected


def test_stratified_names_the_group_in_target_and_refuses_an_unknown_column(small, small_written):
    view = small.view(small_written, Needs())
    scores = registry.make("stratified").score(view, 0)
    source = dict(zip(small.ids.tolist(), small.columns["source"], strict=True))
    assert scores["target"].to_pylist() == [source[i] for i in scores["sample_id"].to_pylist()]
    with pytest.raises(InputError, match="did you mean 'source'"):
        registry.make("stratified", {"column": "sorce"}).score(view, 0)


def test_random_and_stratified_draw_apart_with_one_seed(world, written):
    view = world.view(written, Needs())
    shared = set(pick(view, "random", 30)) & set(pick(view, "stratified", 30))
    assert len(shared) < 20
