"""The laws of a selector, for all registered ones: a new file in `methods/` is adopted unnamed."""

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from vinnow.select import registry
from vinnow.select.run import select
from vinnow.store.errors import InputError
from vinnow.store.tables import PICKS, SCORES, read_rows

# every method as it comes, and the settings that change how a pick is made
CASES = [(name, {}) for name in registry.names()]
CASES += [(name, {"aggregate": a}) for name in ("less", "less_exact") for a in ("mean", "vote")]
CASES += [
    ("xmas", {"text_policy": "cluster", "trajectory": "vectors"}),
    ("diverse", {"start": "random", "unit": False}),
    ("diverse", {"method": "mean_distance"}),
    ("xmas", {"kmeans": "sklearn", "scale": "log"}),
]
case = pytest.mark.parametrize(("name", "config"), CASES, ids=[f"{n}{list(c.values())}" for n, c in CASES])


def ids_of(table):
    return table["sample_id"].to_pylist()


def without_one(needs):
    """Yield the needs without each one of them."""
    yield from (replace(needs, features=tuple(f for f in needs.features if f != n)) for n in needs.features)
    yield from (replace(needs, fields=tuple(f for f in needs.fields if f != n)) for n in needs.fields)
    if needs.targets:
        yield replace(needs, targets=False)


def test_the_suite_sees_every_method():
    assert {"random", "stratified", "less", "less_exact", "xmas", "scienceqa_prune", "diverse"} <= set(registry.names())
    assert {name for name, _ in CASES} == set(registry.names())


@case
@pytest.mark.parametrize("budget", [1, 45, "N"])
def test_picks_are_unique_of_the_pool_and_exactly_the_budget(world, written, tmp_path, name, config, budget):
    wanted = world.n if budget == "N" else budget
    view = world.view(written, registry.make(name, config).needs)
    path = select(view, name, config, [wanted], 3, str(tmp_path))[str(wanted)]
    picks = read_rows(path, PICKS)
    assert picks.num_rows == wanted == len(set(ids_of(picks)))
    assert set(ids_of(picks)) <= set(world.ids.tolist())
    assert picks["rank"].to_pylist() == list(range(wanted))
    assert picks["selector"].unique().to_pylist() == [name]
    assert (picks["budget"][0].as_py(), picks["seed"][0].as_py()) == (wanted, 3)


@case
@pytest.mark.parametrize("budget", [0, -1, 91])
def test_a_budget_that_does_not_fit_is_refused(world, written, tmp_path, name, config, budget):
    selector = registry.make(name, config)
    view = world.view(written, selector.needs)
    with pytest.raises(InputError, match="budget"):
        select(view, name, config, [budget], 0, str(tmp_path))
    with pytest.raises(InputError, match="budget"):
        selector.pick(selector.score(view, 0), budget, 0)


@case
def test_scores_fit_the_table(world, written, name, config):
    selector = registry.make(name, config)
    scores = selector.score(world.view(written, selector.needs), 0)
    assert scores.schema.equals(SCORES)
    assert set(ids_of(scores)) == set(world.ids.tolist())
    assert np.isfinite(scores["score"].to_numpy()).all()
    pairs = list(zip(ids_of(scores), scores["target"].to_pylist(), strict=True))
    assert len(pairs) == len(set(pairs))


@case
def test_the_seed_says_it_all(world, written, name, config):
    selector = registry.make(name, config)
    view = world.view(written, selector.needs)

    def run(seed):
        picks = selector.pick(selector.score(view, seed), 45, seed)
        return ids_of(picks)

    assert run(1) == run(1)
    assert (run(1) != run(2)) == selector.seeded


@case
def test_neither_row_order_nor_parts_change_a_pick(world, written, tmp_path, name, config):
    selector = registry.make(name, config)
    other = world.write(tmp_path, kinds=selector.needs.features, parts=11, shuffle=8)
    order = np.random.default_rng(4).permutation(world.n)
    views = world.view(written, selector.needs), world.view(other, selector.needs, order)
    one, two = (selector.score(v, 2) for v in views)
    assert one.equals(two)
    for budget in (1, 20, 45):
        assert selector.pick(one, budget, 2).equals(selector.pick(two, budget, 2))


@case
def test_ties_go_to_the_smaller_id_in_any_order_of_scores(world, written, name, config):
    selector = registry.make(name, config)
    scores = selector.score(world.view(written, selector.needs), 0)
    tied = scores.set_column(3, SCORES.field("score"), pa.array(np.zeros(scores.num_rows)))
    shuffled = tied.take(np.random.default_rng(1).permutation(tied.num_rows))
    picks = selector.pick(shuffled, 45, 0)
    assert picks.equals(selector.pick(tied, 45, 0))
    ids, groups = np.array(ids_of(picks), np.uint64), picks["group"].to_numpy()
    for group in np.unique(groups):
        mine = ids[groups == group]
        candidates = np.sort(tied["sample_id"].to_numpy()[tied["group"].to_numpy() == group])
        assert np.array_equal(np.sort(mine), candidates[: len(mine)])


@case
def test_scores_mean_what_the_method_says(world, written, name, config):
    selector = registry.make(name, config)
    scores = selector.score(world.view(written, selector.needs), 0)
    picks = selector.pick(scores, 45, 0)
    means, score = registry.score_means(selector), picks["score"].to_numpy()
    if means == "worth":  # the picks are the best, the best first
        assert (np.diff(score) <= 0).all()
        if config.get("aggregate") != "vote":  # those picks carry votes
            passed = scores.filter(pc.invert(pc.is_in(scores["sample_id"], picks["sample_id"])))
            assert score.min() >= pc.max(passed["score"]).as_py()
    assert selector.seeded or means != "chance"


@case
def test_only_declared_features_are_read(world, tmp_path, name, config):
    selector = registry.make(name, config)
    kinds = selector.needs.features
    # nothing else is there to be read
    root = world.write(tmp_path, kinds=kinds)
    assert selector.score(world.view(root, selector.needs), 0).num_rows
    for fewer in without_one(selector.needs):
        with pytest.raises(InputError, match="declares only"):
            selector.score(world.view(root, fewer), 0)


class Watched:
    """A config that notes which of its fields are read."""

    def __init__(self, config, read):
        self.__dict__.update(config=config, read=read)

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(self.config, name)


@pytest.mark.parametrize("name", registry.names())
def test_every_field_is_read(world, written, name):
    """What nobody reads changes nothing; a field may be read under one of the settings of CASES alone."""
    read, fields = set(), set()
    for config in (c for n, c in CASES if n == name):
        selector = registry.make(name, config)
        fields |= set(type(selector.config).model_fields)
        selector.config = Watched(selector.config, read)
        selector.pick(selector.score(world.view(written, selector.needs), 0), 45, 0)
    assert fields - read == set()


@case
def test_refused_rows_are_never_picked(world, written, name, config):
    selector = registry.make(name, config)
    refused = world.ids[[3, 7, 8]]
    view = world.view(written, selector.needs, refused=refused)
    picks = selector.pick(selector.score(view, 0), world.n - 3, 0)
    assert set(ids_of(picks)) == set(world.ids.tolist()) - set(refused.tolist())


@case
def test_a_pick_of_a_large_pool_takes_seconds(world, written, name, config):
    selector = registry.make(name, config)
    scores = selector.score(world.view(written, selector.needs), 0)
    copies = 665_298 // world.n
    _, row = np.unique(scores["sample_id"].to_numpy(), return_inverse=True)
    ids = (row[None] + world.n * np.arange(copies)[:, None]).astype(np.uint64).ravel()
    columns = {n: pa.concat_arrays([scores[n].combine_chunks()] * copies) for n in ("target", "group", "score")}
    large = pa.table({"sample_id": ids} | columns)
    start = time.perf_counter()
    picks = selector.pick(large, len(np.unique(ids)) // 5, 0)
    assert time.perf_counter() - start < 20
    assert picks.num_rows == world.n * copies // 5
