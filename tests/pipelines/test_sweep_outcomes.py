"""A whole sweep with real answers of models that nothing trained: what is the same, failed, dropped or not run is told.

Trials run here one after another, handed out by the desk as Tune would be.
"""

import json
import os

import pytest
from finished import STAND_INS, drive, values_of
from vinnow.pipelines.report.gather import gather
from vinnow.pipelines.report.headline import findings, headline
from vinnow.pipelines.runs import sweep
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.plan import make_plan
from vinnow.pipelines.runs.run import run_stages
from vinnow.pipelines.runs.status import status
from vinnow.pipelines.runs.sweeping.rungs import for_verdicts
from vinnow.store.errors import BudgetSpentError, InputError, UnfinishedError
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, read_rows
from vinnow.train import run as training

NAMES = {"by_source": {"column": "source"}, "by_task": {"column": "task"}}


class Trainings:
    """Which trials were trained; those in `broken` fail."""

    def __init__(self):
        self.names, self.broken = [], set()


@pytest.fixture
def trained(monkeypatch):
    seen = Trainings()
    for (where, name), stand_in in STAND_INS.items():
        monkeypatch.setattr(where, name, stand_in)
    leave = STAND_INS[training, "_fit"]

    def fit(config, out, callbacks):
        name = os.path.basename(os.path.dirname(out))
        if name in seen.broken:
            raise InputError(f"no room for {name}.")
        seen.names.append(name)
        leave(config, out, callbacks)

    monkeypatch.setattr(training, "_fit", fit)
    return seen


@pytest.fixture
def values(tmp_path):
    tree = values_of(tmp_path)
    tree |= {"proxy": None, "features": [], "selectors": [{"name": "random"}], "target": None}
    return tree


def labelled(*labels):
    return [{"name": "random"}, *({"name": "random", "label": label} for label in labels)]


def run(values, *sets):
    config = resolve(json.loads(json.dumps(values)), list(sets))
    run_stages(config)
    return config


def told(out):
    """The report's sentences, and which choices it has figures of."""
    data = gather(out)
    rows = headline(data.trials)
    return "\n".join(findings(rows, data)), {(r.selector, r.budget, r.seeds) for r in rows}


def test_the_same_rows_are_trained_once_and_told_apart(trained, values):
    values |= {"selectors": labelled("again")}
    config = run(values)
    assert trained.names == ["random-20pct-s0"]
    one, other = (read_json(f"{config.out}/sweep/{n}-20pct-s0/result.json") for n in ("random", "again"))
    assert other["same_as"] == "random-20pct-s0"
    assert other["selector"] == "again"
    assert (other["accuracy"], other["train_seconds"]) == (one["accuracy"], one["train_seconds"])
    assert not os.path.exists(f"{config.out}/sweep/again-20pct-s0/train")
    evals = read_rows(f"{config.out}/evals.parquet", EVALS)
    assert one["run"] != other["run"]
    assert evals["run"].to_pylist().count(other["run"]) == evals["run"].to_pylist().count(one["run"]) == 9
    sentences, rows = told(config.out)
    assert "The same as other trials, trained once: again-20pct-s0." in sentences
    assert rows == {("random", "20%", 1), ("again", "20%", 1)}
    assert {s.state for s in status(config.out)} == {"done"}
    assert "trained once: again-20pct-s0" in status(config.out)[-1].detail
    plan = {line.stage: line for line in make_plan(config)}
    assert "2 trials, of which 1 are the same as others and trained once" in plan["sweep-random-20%"].note
    assert (plan["sweep-again-20%"].steps, plan["sweep-again-20%"].state) == (0, "done")
    assert plan["sweep-random-20%"].steps == 3
    # one that is added later, and a seed, which makes other trainings
    config = run(values | {"selectors": labelled("again", "third"), "seeds": [0, 1]})
    assert trained.names == ["random-20pct-s0", "random-20pct-s1"]
    assert read_json(f"{config.out}/sweep/third-20pct-s0/result.json")["same_as"] == "random-20pct-s0"
    # the one that was trained is no part of the run any more: what it reached is there still
    run(values | {"selectors": [{"name": "random", "label": "again"}], "seeds": [0]})
    assert len(trained.names) == 2
    assert told(config.out)[1] == {("again", "20%", 1)}


def test_what_fails_is_told_and_the_others_are_in_the_report(trained, values):
    values |= {"selectors": labelled("again"), "budgets": ["20%", "40%"]}
    trained.broken = {"random-40pct-s0"}
    with pytest.raises(UnfinishedError) as caught:
        run(values)
    assert "random-40pct-s0: no room for random-40pct-s0; again-40pct-s0: it is random-40pct-s0 again" in str(
        caught.value
    )
    out = values["out"]
    sentences, rows = told(out)
    assert rows == {("random", "20%", 1), ("again", "20%", 1)}
    assert "Random-40pct-s0 failed: no room for random-40pct-s0" in sentences
    assert os.path.exists(f"{out}/report.html")
    under_way = status(out)[-1]
    assert (under_way.name, under_way.state) == ("sweep", "under way")
    assert "random-40pct-s0 failed: no room for random-40pct-s0" in under_way.detail
    trained.broken = set()
    run(values)
    assert trained.names == ["random-20pct-s0", "random-40pct-s0"]
    sentences, rows = told(out)
    assert len(rows) == 4
    assert "failed" not in sentences


def test_halving_stops_choices_and_leaves_their_questions_out(trained, values, monkeypatch):
    values |= {"seeds": [0, 1], "budgets": [6]}
    values["selectors"] = [
        {"name": "random"},
        *({"name": "stratified", "label": n, "config": c} for n, c in NAMES.items()),
    ]
    halved = values | {"sweep": {"full": False, "search": "successive", "eta": 2, "rung_share": 0.5}}
    config = run(halved)
    manifest = read_json(f"{config.out}/stages/sweep.json")
    dropped = manifest["facts"]["dropped"]
    assert len(dropped) == 1
    (name,) = dropped
    assert "stopped after 1 of 2 seeds" in dropped[name]
    assert name.endswith("-s1")
    assert len(trained.names) == 5
    assert name not in trained.names
    sentences, rows = told(config.out)
    gone = name.split("-")[0]
    assert f"Not run: {name}: stopped after 1 of 2 seeds" in sentences
    assert "decided by questions about 50% of the pictures" in sentences
    assert {selector for selector, _, _ in rows} == {"random", *NAMES} - {gone}
    answers = read_rows(f"{config.out}/sweep/random-6-s0/eval/evals.parquet", EVALS)
    kept = for_verdicts(answers, 0.5)
    assert 0 < kept.num_rows < answers.num_rows
    evals = read_rows(f"{config.out}/evals.parquet", EVALS)
    assert set(evals["sample"].to_pylist()) == set(kept["sample"].to_pylist())
    assert {s.state for s in status(config.out)} == {"done"}
    assert all(line.done for line in make_plan(config) if line.within == "sweep")
    before = list(trained.names)
    run(halved)  # nothing is left to do
    assert trained.names == before
    # every choice, after all: what was dropped is trained, and all questions count
    config = run(values | {"sweep": {"full": False}})
    assert trained.names[5:] == [name]
    assert len(told(config.out)[1]) == 3
    assert read_rows(f"{config.out}/evals.parquet", EVALS).num_rows == 6 * answers.num_rows


def test_a_sweep_ends_where_its_device_hours_do_and_goes_on_with_more(trained, values, monkeypatch):
    values |= {"budgets": ["20%", "40%", "60%"]}
    monkeypatch.setattr(sweep, "_tune", drive)
    with pytest.raises(
        BudgetSpentError, match=r"2 of 3 trials were not run: sweep.device_hours: .* of 1e-06 are spent"
    ):
        run(values, "sweep.device_hours=1e-6")
    assert trained.names == ["random-60pct-s0"]
    sentences, rows = told(values["out"])
    assert rows == {("random", "60%", 1)}
    assert "Not run: random-40pct-s0, random-20pct-s0: sweep.device_hours" in sentences
    config = resolve(json.loads(json.dumps(values)), ["sweep.device_hours=1e-6"])
    assert "no trial begins that does not fit into 1e-06 device-hours" in make_plan(config)[-3].note
    run(values, "sweep.device_hours=5")
    assert trained.names == ["random-60pct-s0", "random-40pct-s0", "random-20pct-s0"]
    assert len(told(values["out"])[1]) == 3
