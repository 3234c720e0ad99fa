"""The laws of a pick rule, for all registered ones, each beside a plain oracle; scores of several labels made once."""

import time

import numpy as np
import pytest
from vinnow.select import registry, rule
from vinnow.select.rule import Candidates, Taken, with_rule
from vinnow.select.run import select_by
from vinnow.store.errors import InputError
from vinnow.store.files import list_files
from vinnow.store.tables import PICKS, read_rows

CASES = [(name, {}) for name in rule.names()]
CASES += [("balanced", {"by": "group"}), ("proportional", {"by": "has_image"}), ("votes", {"share": 0.05})]
case = pytest.mark.parametrize(("name", "config"), CASES, ids=[f"{n}{list(c.values())}" for n, c in CASES])


def candidates(n, targets, seed=0, decimals=1):
    """Rows with many equal scores."""
    rng = np.random.default_rng(seed)
    scores_NT = rng.normal(size=(n, targets)).round(decimals)
    columns = {"source": rng.choice(["a", "b", "c"], n, p=[0.7, 0.2, 0.1]), "has_image": rng.random(n) < 0.8}
    columns["task"] = rng.choice(["x", ""], n)
    return Candidates(
        np.sort(rng.permutation(10 * n)[:n]).astype(np.uint64), scores_NT, rng.integers(0, 4, n), columns.get
    )


def wide(name):
    return 5 if rule.make_rule(name).each_target else 1


@case
@pytest.mark.parametrize("budget", [1, 45, 200])
def test_a_rule_takes_exactly_the_budget_each_row_once(name, config, budget):
    taken = rule.make_rule(name, config).pick(candidates(200, wide(name)), budget)
    assert isinstance(taken, Taken)
    assert len(set(taken.positions_B.tolist())) == budget == len(taken.group_B) == len(taken.score_B)


@case
@pytest.mark.parametrize("budget", [0, 201])
def test_a_budget_that_does_not_fit_is_refused(name, config, budget):
    with pytest.raises(InputError, match="budget"):
        rule.make_rule(name, config).pick(candidates(200, wide(name)), budget)


@case
def test_equal_scores_go_to_the_smaller_id(name, config):
    there = candidates(200, wide(name))
    tied = Candidates(there.ids_N, np.zeros_like(there.scores_NT), there.group_N, there.column)
    chosen = rule.make_rule(name, config)
    taken = chosen.pick(tied, 50).positions_B
    grouped = there.groups(chosen.config.by) if config.get("by") or hasattr(chosen.config, "by") else np.zeros(200)
    for group in np.unique(grouped[taken]):
        mine = np.sort(taken[grouped[taken] == group])
        assert np.array_equal(mine, np.flatnonzero(grouped == group)[: len(mine)])


def test_round_robin_is_each_target_in_turn():
    there, budget = candidates(80, 3), 50
    left, by_hand = set(range(80)), []
    for turn in range(budget):
        best = min(left, key=lambda i, t=turn % 3: (-there.scores_NT[i, t], there.ids_N[i]))
        left.remove(best)
        by_hand.append(best)
    taken = rule.make_rule("round_robin").pick(there, budget)
    assert taken.positions_B.tolist() == by_hand
    assert taken.group_B.tolist() == [turn % 3 for turn in range(budget)]
    assert taken.score_B.tolist() == [there.scores_NT[i, turn % 3] for turn, i in enumerate(by_hand)]


@pytest.mark.parametrize("by", ["source", "task", "has_image", "group"])
def test_balanced_and_proportional_split_by_what_they_are_told(by):
    there, budget = candidates(300, 1), 90
    groups, sizes = np.unique(there.groups(by), return_counts=True)
    even = rule.make_rule("balanced", {"by": by}).pick(there, budget)
    counts = np.array([(even.group_B == g).sum() for g in groups])
    whole = counts == sizes
    assert whole.all() or np.ptp(counts[~whole]) <= 1
    shares = rule.make_rule("proportional", {"by": by}).pick(there, budget)
    assert np.abs(np.array([(shares.group_B == g).sum() for g in groups]) - sizes * budget / 300).max() < 1
    for taken in (even, shares):  # the best of each group
        for g in groups:
            mine = there.scores_NT[taken.positions_B[taken.group_B == g], 0]
            others = np.setdiff1d(np.flatnonzero(there.groups(by) == g), taken.positions_B)
            assert not len(others) or mine.min() >= there.scores_NT[others, 0].max()


def test_a_rule_picks_for_less_as_its_own_vote_does(world, written, tmp_path):
    voted = registry.make("less", {"aggregate": "vote", "vote_share": 0.1})
    ruled = with_rule(registry.make("less"), "votes", {"share": 0.1})
    view = world.view(written, voted.needs)
    own, other = (
        read_rows(select_by(view, s, n, [30], 1, str(tmp_path))["30"], PICKS)
        for s, n in ((voted, "own"), (ruled, "other"))
    )
    assert own.drop(["selector"]).equals(other.drop(["selector"]))


def test_rows_and_their_order_change_nothing(world, written):
    for name in rule.names():
        ruled = with_rule(registry.make("less"), name)
        order = np.random.default_rng(4).permutation(world.n)
        views = [world.view(written, ruled.needs), world.view(written, ruled.needs, order)]
        one, two = (ruled.on(v).pick(ruled.on(v).score(v, 0), 40, 0) for v in views)
        assert one.equals(two)


def test_rules_share_the_scores_of_their_selector(world, written, tmp_path, monkeypatch):
    from vinnow.select.influence import Influence

    scored = []
    before = Influence._against_tasks
    monkeypatch.setattr(Influence, "_against_tasks", lambda self, view: scored.append(1) or before(self, view))
    less = registry.make("less")
    for label, chosen in (("less", less), *((f"less-{n}", with_rule(less, n)) for n in rule.names())):
        select_by(world.view(written, less.needs), chosen, label, [20, 40], 0, str(tmp_path))
    assert len(scored) == 2  # one score a row, and every target's
    assert len(list_files(str(tmp_path / "scores"), ".parquet")) == 1 + len(rule.names())


@pytest.mark.parametrize(
    ("selector", "config", "name", "words"),
    [
        ("xmas", {}, "top", "takes no pick rule: its scores are places"),
        ("random", {}, "round_robin", "'random' has one score a row. Those that have them: less, less_exact"),
        ("less", {"aggregate": "mean"}, "round_robin", "takes the place of aggregate"),
        ("less", {"aggregate": "vote"}, "top", "takes the place of aggregate"),
        ("less", {}, "round_robbin", "unknown pick rule 'round_robbin'; did you mean 'round_robin'"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(selector, config, name, words):
    with pytest.raises(InputError, match=words):
        with_rule(registry.make(selector, config), name)
    with pytest.raises(InputError, match="unknown field"):
        rule.make_rule("votes", {"shar": 0.1})


@case
def test_665298_rows_take_seconds(name, config):
    there = candidates(665_298, 8 if wide(name) > 1 else 1, decimals=6)
    begin = time.perf_counter()
    rule.make_rule(name, config).pick(there, 332_649)
    assert time.perf_counter() - begin < 20
