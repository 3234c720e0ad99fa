"""What a sweep decides before it trains: the order of trials, who goes on, what is enough, whose state is read."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest
from finished import values_of
from vinnow.evaluate.config import EvalConfig
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.sweeping import seal
from vinnow.pipelines.runs.sweeping.hours import Purse
from vinnow.pipelines.runs.sweeping.order import in_order
from vinnow.pipelines.runs.sweeping.outcome import Outcome
from vinnow.pipelines.runs.sweeping.rungs import deciding, for_verdicts, score_of
from vinnow.pipelines.runs.sweeping.same import with_leaders
from vinnow.pipelines.runs.sweeping.search import Entry, most, ready
from vinnow.pipelines.runs.trial import Trial
from vinnow.store.errors import BudgetSpentError, InputError, UnfinishedError
from vinnow.store.files import write_json
from vinnow.store.tables import EVALS
from vinnow.train.config import TrainConfig

SELECTORS = [{"name": "less"}, {"name": "random"}, {"name": "xmas"}]


def trial_of(config, selector, rows, seed, **changes):
    name = f"{selector}-{rows}-s{seed}"
    folder = os.path.join(config.out, "sweep", name)
    training = TrainConfig(model="m", pool="p", seed=seed, global_batch=8, micro_batch=8)
    made_of = {"made_of": {"rows": f"{selector}-{rows}-{seed}"} | changes.pop("made_of", {})}
    asked = EvalConfig(model="m", pool="p", run=name)
    return Trial(name, selector, str(rows), seed, folder, training, asked, rows=rows, **made_of, **changes)


@pytest.fixture
def config(tmp_path):
    return resolve(values_of(tmp_path) | {"selectors": SELECTORS, "budgets": [5, 10], "seeds": [7, 1, 4]})


def test_random_and_the_whole_pool_go_first_then_seed_by_seed_dearest_first(config):
    sizes = dict.fromkeys(("less", "random", "xmas"), (5, 10)) | {"full": (30,)}
    trials = [trial_of(config, s, rows, seed) for s, of in sizes.items() for rows in of for seed in (1, 4, 7)]
    names = [t.name for t in in_order(config, trials)]
    assert names[:9] == [f"{s}-s{seed}" for seed in (7, 1, 4) for s in ("full-30", "random-10", "random-5")]
    rest = [f"{s}-{rows}-s{seed}" for seed in (7, 1, 4) for rows in (10, 5) for s in ("less", "xmas")]
    assert names[9:] == rest
    # stopped after any whole seed, every selector has as many seeds as any other, and random has them too
    for seeds in (1, 2, 3):
        done = names[: 9 + 4 * seeds]
        counts = {s: sum(n.startswith(s) for n in done) for s in ("less", "xmas")}
        assert set(counts.values()) == {2 * seeds}


def test_trials_of_the_same_rows_recipe_and_seed_are_one(config):
    same = {"made_of": {"rows": "a"}}
    a, b, c = (trial_of(config, s, 5, 7, **json.loads(json.dumps(same))) for s in ("random", "less", "xmas"))
    other_seed, other = trial_of(config, "less", 5, 1, **same), trial_of(config, "less", 10, 7)
    told = {t.name: t.same_as for t in with_leaders([a, b, other_seed, other, c])}
    assert told == {a.name: "", b.name: a.name, other_seed.name: "", other.name: "", c.name: a.name}
    runs = [t.evaluate.run for t in with_leaders([a, b, c])]
    assert len(set(runs)) == 3
    # one that has begun goes before, and one that is finished before that
    os.makedirs(os.path.join(b.folder, "train"))
    assert {t.name: t.same_as for t in with_leaders([a, b, c])} == {a.name: b.name, b.name: "", c.name: b.name}
    _finish(c)
    assert {t.name: t.same_as for t in with_leaders([a, b, c])} == {a.name: c.name, b.name: c.name, c.name: ""}
    # an older version trained both: they stay what they are
    _finish(a)
    assert {t.name: t.same_as for t in with_leaders([a, b, c])} == {a.name: "", b.name: a.name, c.name: ""}


def test_halving_ranks_the_choices_of_a_budget_at_equal_seeds():
    entries = [Entry("random-s0", "random", "10%", 0, base=True), Entry("random-s1", "random", "10%", 1, base=True)]
    entries += [Entry(f"{c}-s{k}", c, "10%", k) for k in (0, 1, 2) for c in "abcd"]
    by_name = {e.name: e for e in entries}

    def begin(search, eta=2):
        return ready(entries, search, eta).begin

    bases, first = ["random-s0", "random-s1"], [f"{c}-s0" for c in "abcd"]
    assert begin("grid") == [e.name for e in entries]
    assert begin("successive") == begin("asha") == [*bases, *first]
    for name, score in (("a-s0", 0.5), ("b-s0", 0.7)):
        by_name[name].state, by_name[name].score = "done", score
    assert begin("successive") == [*bases, "c-s0", "d-s0"]  # it waits for the rung
    assert begin("asha") == ["b-s1", *bases, "c-s0", "d-s0"]  # the best of two goes on
    by_name["c-s0"].state, by_name["c-s0"].score = "done", 0.9
    by_name["d-s0"].state = "running"
    assert ready(entries, "successive", 2).dropped == {}
    by_name["d-s0"].state = "failed"
    now = ready(entries, "successive", 2)
    assert now.begin == [*bases, "b-s1", "c-s1"]
    assert set(now.dropped) == {"a-s1", "a-s2"}
    assert now.dropped["a-s1"].startswith("stopped after 1 of 3 seeds: 40.0 points behind c, the best of 3")
    # the mean of both seeds decides next, and one of four goes on
    for name, score in (("b-s1", 0.9), ("c-s1", 0.6)):
        by_name[name].state, by_name[name].score = "done", score
    now = ready(entries, "successive", 2)
    assert now.begin == [*bases, "b-s2"]
    assert now.dropped["c-s2"].startswith("stopped after 2 of 3 seeds: 5.0 points behind b")
    # what has begun goes on, whatever the others reach
    by_name["a-s1"].state = "begun"
    assert "a-s1" in ready(entries, "successive", 2).begin
    assert "a-s1" not in ready(entries, "successive", 2).dropped
    assert most(4, 3, 2) == 4 + 2 + 1


def test_questions_that_decide_are_whole_pictures_and_in_no_verdict():
    rows = [{"sample": str(i), "cluster": f"bytes:{i // 3}", "score": float(i % 2), "run": "r"} for i in range(600)]
    rows += [{"sample": f"t{i}", "cluster": None, "score": 1.0, "run": "r"} for i in range(50)]
    fill = {"benchmark": "b", "task": "t", "correct": True, "answer": "", "reference": ""}
    evals = pa.Table.from_pylist([fill | r for r in rows], schema=EVALS)
    sides = deciding(evals, 0.2)
    assert 0.1 < sides.mean() < 0.3
    assert all(len(set(sides[3 * i : 3 * i + 3])) == 1 for i in range(200))
    kept = for_verdicts(evals, 0.2)
    assert kept.num_rows == int((~sides).sum())
    # it stays where it was in a longer test set, and in another order
    turned = evals.take(pa.array(np.arange(evals.num_rows)[::-1]))
    assert np.array_equal(deciding(turned, 0.2), sides[::-1])
    assert score_of(evals, 0.2) == pytest.approx(evals["score"].to_numpy()[sides].mean())
    assert score_of(evals.slice(0, 0), 0.2) is None


def test_no_trial_begins_that_does_not_fit_into_the_device_hours(config):
    config = config.model_copy(update={"sweep": config.sweep.model_copy(update={"device_hours": 1.0})})
    done, small, large = (trial_of(config, "less", rows, 7) for rows in (16, 8, 80))
    _finish(done, held_seconds=360.0)
    purse = Purse(config, [done])
    assert purse.spent == pytest.approx(0.1)
    assert not purse.allows(trial_of(config, "xmas", 160, 7))  # ten times as many steps
    assert purse.allows(large)  # half an hour
    assert purse.allows(small)  # and three minutes beside it
    assert not purse.allows(trial_of(config, "random", 80, 7))
    _finish(large, held_seconds=4000.0)
    purse.ended(large)
    assert purse.spent > 1.0
    assert not purse.allows(trial_of(config, "random", 8, 7))
    assert Purse(
        config.model_copy(update={"sweep": config.sweep.model_copy(update={"device_hours": None})}), [done]
    ).allows(large)


def test_what_is_not_done_is_told_and_decides_the_error(config):
    trials = [trial_of(config, "less", 5, seed) for seed in (7, 1, 4)]
    names = [t.name for t in trials]
    spent = Outcome(trials, trials[:1], [], {}, {}, names[1:], 0.9, 1.0, stopped=True)
    with pytest.raises(BudgetSpentError, match=r"2 of 3 trials were not run: sweep.device_hours: 0.9 of 1 are spent"):
        spent.check()
    assert spent.lines() == [
        "not run: less-5-s1, less-5-s4: sweep.device_hours: 0.9 of 1 are spent, and the rest is not enough for the next"
    ]
    failed = Outcome(trials, trials[:1], [], {names[1]: "no room."}, {}, names[2:], 0.9, 1.0, stopped=True)
    with pytest.raises(UnfinishedError, match=r"less-5-s1: no room. The others are kept.*1 more were not run"):
        failed.check()
    Outcome(trials, trials[:1], [], {}, dict.fromkeys(names[1:], "stopped")).check()


def test_a_search_needs_seeds_to_halve(tmp_path):
    with pytest.raises(InputError, match=r"sweep.search: successive drops choices between seeds, and there is one"):
        resolve(values_of(tmp_path) | {"sweep": {"search": "successive"}})


def test_only_what_this_user_sealed_is_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "KEY", str(tmp_path / "home" / "key"))
    place = tmp_path / "tune"
    place.mkdir()
    assert seal.why_not(str(place), "shape") == ""
    for name in ("tuner.pkl", "experiment_state-1.json", "search_gen_state-1.json", "searcher-state-1.pkl"):
        (place / name).write_bytes(name.encode())
    assert seal.why_not(str(place), "shape") == "it has no seal"
    seal.seal(str(place), "shape")
    assert os.stat(seal.KEY).st_mode & 0o777 == 0o600
    assert seal.why_not(str(place), "shape") is None
    assert "are others than then" in seal.why_not(str(place), "another")
    for change in ("tuner.pkl", "experiment_state-2.json", "more.pkl"):  # another byte, a newer state, one more pickle
        kept = (place / change).read_bytes() if (place / change).exists() else None
        (place / change).write_bytes(b"evil")
        assert seal.why_not(str(place), "shape") == "it is not as it was sealed"
        (place / change).unlink() if kept is None else (place / change).write_bytes(kept)
    assert seal.why_not(str(place), "shape") is None
    os.chmod(seal.KEY, 0o644)  # others could have read it
    assert "there is no key" in seal.why_not(str(place), "shape")
    os.remove(seal.KEY)  # a run's folder that came from elsewhere
    assert seal.why_not(str(place), "shape") == "its seal is not this user's on this machine"
    seal.seal(str(place), "shape", ended=True)
    assert seal.why_not(str(place), "shape") == ""


def _finish(trial, **result):
    values = {"selector": trial.selector, "budget": trial.budget, "seed": trial.seed, "rows": trial.rows, "run": "r"}
    values |= {"train_seconds": 1.0, "eval_seconds": 0.0}
    write_json(os.path.join(trial.folder, "result.json"), values | result)
