"""A run grows: more budgets, selectors, seeds, variants, features or questions make what is new, and nothing twice."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from finished import drive, values_of
from pictures import make_records, write_records
from vinnow.actors import cluster, stream
from vinnow.pipelines.report.gather import gather
from vinnow.pipelines.runs import answered, begin, sweep
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.run import run_stages
from vinnow.pipelines.runs.status import status
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.files import read_json, write_json
from vinnow.store.tables import EVALS, read_rows
from vinnow.train import run as training
from vinnow.train.solo import Bases, fit_here

LESS = {"name": "less", "config": {"targets": ["shape"]}}
# what tells of all trials together, and what a stage says of itself
TOLD = ("run.json", "report.html", "answer.csv", "answer.parquet", "evals.parquet", "scores/seconds.json", "tune.log")
TOLD += ("stages/select.json", "stages/sweep.json")


class Work:
    """What was trained, and which questions were asked, since the last `clear`."""

    def __init__(self):
        self.trained, self.asked, self.stop_at = [], [], None

    def clear(self):
        self.trained, self.asked = [], []


@pytest.fixture
def work(monkeypatch):
    """A run in this process, with real trainings and answers: Ray and Tune alone are left out."""
    seen, bases = Work(), Bases()

    def fit(config, out, _=()):
        name = os.path.relpath(out, os.path.dirname(os.path.dirname(out)))
        if name == seen.stop_at:
            raise KeyboardInterrupt
        seen.trained.append(name.removesuffix("/train"))
        fit_here(config, out, bases)

    def ask(config, out, *, here):
        before = set(os.listdir(f"{out}/answers")) if os.path.isdir(f"{out}/answers") else set()
        report = evaluate(config, out, here=True)
        for part in sorted(set(os.listdir(f"{out}/answers")) - before):
            rows = read_rows(f"{out}/answers/{part}", EVALS)
            seen.asked += [(os.path.basename(out), s) for s in rows["sample"].to_pylist()]
        return report

    evaluate = answered.evaluate
    monkeypatch.setattr(answered, "evaluate", ask)
    for where in (cluster, sweep):
        monkeypatch.setattr(where, "ensure_ray", lambda config: None)
    monkeypatch.setattr(begin, "require_workers", lambda config, what: None)
    monkeypatch.setattr(sweep, "require_trials", lambda trials: None)
    monkeypatch.setattr(stream, "run_features", lambda spec, *_: stream.run_inline(spec))
    monkeypatch.setattr(training, "_fit", fit)
    monkeypatch.setattr(sweep, "_tune", drive)
    return seen


@pytest.fixture
def values(tmp_path):
    tree = values_of(tmp_path)
    return tree | {"selectors": [{"name": "random"}], "features": tree["features"][:1]}


def grow(values, *sets):
    """Run it, with `--set`s; returns the run's folder."""
    config = resolve(json.loads(json.dumps(values)), list(sets))
    run_stages(config)
    return config.out


def files(out):
    """Every file but those that tell of the whole run: its time and its content."""
    stamps = {}
    for root, _, names in os.walk(out):
        for name in names:
            path = os.path.relpath(os.path.join(root, name), out)
            if path not in TOLD and not name.startswith(".vinnow"):
                data = Path(out, path).read_bytes()
                stamps[path] = (os.stat(os.path.join(out, path)).st_mtime_ns, hashlib.sha256(data).hexdigest())
    return stamps


def added(before, out):
    """Return what is new, having seen that all that was there is untouched."""
    now = files(out)
    assert {p: now.get(p) for p in before} == before
    return now.keys() - before.keys()


def test_budgets_selectors_seeds_and_variants_add_and_redo_nothing(work, values):
    out = grow(values)
    assert work.trained == ["train/proxy", "random-20pct-s0"]
    first = read_json(f"{out}/run.json")
    assert "history" not in first
    # a selector, put first, and a budget
    before, scores = files(out), read_json(f"{out}/stages/select.json")["seconds"]
    work.clear()
    both = values | {"selectors": [LESS, {"name": "random"}], "budgets": ["20%", "40%"]}
    grow(both)
    assert sorted(work.trained) == ["less-20pct-s0", "less-40pct-s0", "random-40pct-s0"]
    new = added(before, out)
    assert {p for p in new if p.startswith("picks/") and p.endswith(".parquet")} == {
        "picks/less-20pct.parquet", "picks/less-40pct.parquet", "picks/random-40pct.parquet",
    }  # fmt: skip
    assert not any(p.startswith(("features", "targets", "pool", "test", "twin", "train")) for p in new)
    assert read_json(f"{out}/stages/select.json")["seconds"] >= scores
    # run.json holds the config as it is, and what was before
    saved = read_json(f"{out}/run.json")
    assert [s["label"] for s in saved["config"]["selectors"]] == ["less", "random"]
    (entry,) = saved["history"]
    assert (entry["digest"], entry["config"]) == (first["digest"], first["config"])
    assert any(line.startswith("budgets: was") for line in entry["changes"])
    # a seed
    before = files(out)
    work.clear()
    seeds = both | {"seeds": [0, 1]}
    grow(seeds)
    assert sorted(work.trained) == [f"{s}-{b}-s1" for s in ("less", "random") for b in ("20pct", "40pct")]
    assert not any("scores/less" in p for p in added(before, out))
    # a feature that nobody reads yet
    before = files(out)
    work.clear()
    grow(seeds | {"features": [*values["features"], {"kind": "loss"}]})
    assert work.trained == []
    assert {p.split("/")[1] for p in added(before, out) if p.startswith("features/")} == {"loss"}
    assert {s.state for s in status(out)} == {"done"}
    # two recipes in place of one: the trials of that stay, and are no part of this run any more
    before = files(out)
    work.clear()
    two = values | {"finetune": {"variants": {"a": {}, "b": {"parts": ["projector"]}}} | values["finetune"]}
    grow(two)
    assert sorted(work.trained) == ["random-20pct-s0-a", "random-20pct-s0-b"]
    added(before, out)
    data = gather(out)
    assert [(t.selector, t.variant) for t in data.trials] == [("random", "a"), ("random", "b")]
    assert [p.selector for p in data.picked] == ["random"]
    assert len(read_json(f"{out}/run.json")["history"]) == 4
    # back to where it was: nothing is left to do
    before = files(out)
    work.clear()
    grow(seeds)
    assert work.trained == work.asked == []
    added(before, out)
    assert len(gather(out).trials) == 8


def test_a_longer_test_set_asks_only_what_is_new(work, values, tmp_path):
    out = grow(values)
    records, pictures = make_records(9, seed=9)
    more, drawn = make_records(5, seed=77)
    more = [r | {"image": "more/" + r["image"]} if "image" in r else r for r in more]
    folder = tmp_path / "longer"
    folder.mkdir()
    write_records(folder, records + more, pictures | {f"more/{n}": p for n, p in drawn.items()})
    section = {"source": str(folder / "records.json"), "image_root": str(folder / "images")}
    before, asked = files(out), {s for _, s in work.asked}
    result = read_json(f"{out}/sweep/random-20pct-s0/result.json")
    work.clear()
    grow(values | {"test": section, "budgets": ["20%", "40%"]})
    pool = Pool(f"{out}/test")
    assert pool.rows > 9
    assert work.trained == ["random-40pct-s0"]
    new = {str(i) for i in pool.ids()} - asked
    old_trial = [s for place, s in work.asked if place != "eval"]
    assert sorted(old_trial) == sorted(new)
    assert sorted(s for place, s in work.asked if place == "eval") == sorted(map(str, pool.ids()))
    now = files(out)
    kept = [p for p in before if not p.startswith(("test/", "stages/ingest-test")) and p != _RESULT]
    assert {p: now[p] for p in kept} == {p: before[p] for p in kept}
    evals = read_rows(f"{out}/evals.parquet", EVALS)
    assert evals.num_rows == 2 * pool.rows
    again = read_json(f"{out}/{_RESULT}")
    assert (again["run"], again["loss"]) == (result["run"], result["loss"])
    mine = [s for r, s in zip(evals["run"].to_pylist(), evals["score"].to_pylist(), strict=True) if r == again["run"]]
    assert again["accuracy"] == pytest.approx(sum(mine) / len(mine))
    assert not os.path.exists(f"{out}/test-next") and not os.path.exists(f"{out}/test-before")  # noqa: PT018
    # a shorter one is refused, and leaves all as it was
    before = files(out)
    with pytest.raises(InputError, match=r"test set is another one: it lacks \d+ of \d+ questions"):
        grow(values)
    assert files(out) == before
    work.clear()
    grow(values | {"test": section, "budgets": ["20%", "40%"]})
    assert work.trained == work.asked == []


_RESULT = "sweep/random-20pct-s0/result.json"


def test_what_would_be_redone_is_refused_by_its_stages(work, values):
    values = values | {
        "selectors": [{"name": "random"}, LESS],
        "warmup": [_warmup(values)],
        "captions": values["target"],
    }
    out = grow(values)
    before, saved = files(out), read_json(f"{out}/run.json")
    work.clear()
    every = "proxy, features-gradient, targets-gradient, select (picks of 1 choice), sweep (1 trial)"
    refused = {
        "proxy.lr=0.5": ("proxy.lr: was 0.001, is 0.5", every),
        "features.0.projection.dim=32": ("projection.dim: was 64, is 32", every.removeprefix("proxy, ")),
        "finetune.lr=0.5": ("finetune.lr: was 0.001, is 0.5", "anew: sweep (2 trials)"),
        "evaluate.max_new_tokens=3": ("max_new_tokens: was 2, is 3", "anew: sweep (answers of 2 trials)"),
        "selectors.1.config.aggregate=mean": (
            "selectors.less.config.aggregate",
            "anew: select (picks of 1 choice), sweep (1 trial)",
        ),
        "warmup.0.train.lr=0.5": ("warmup.stage1.lr", f"anew: warmup-stage1, {every}".replace("1 trial", "2 trials")),
        "model.twin.hidden=32": ("model.twin.hidden", "anew: twin, warmup-stage1, proxy"),
        "seed=3": ("seed: was 0, is 3", "anew: warmup-stage1, proxy, features-gradient"),
        "pool.duplicates=refuse": ("pool.duplicates", "anew: ingest-pool, twin, warmup-stage1, proxy"),
    }
    for entry, words in refused.items():
        with pytest.raises(InputError) as caught:
            grow(values, entry)
        assert all(w in str(caught.value) for w in (*words, "Use another `out`, or delete")), (entry, str(caught.value))
    assert read_json(f"{out}/run.json") == saved
    # where and how fast it runs is free
    free = ["actors.loaders=2", "ray.num_cpus=3", "sweep.concurrent=2", "proxy.workers=2", "proxy.micro_batch=2"]
    free += ["finetune.trackers=[tensorboard]", "finetune.threads=2", "evaluate.token_budget=99", "pool.workers=1"]
    free += ["features.0.token_budget=999", "features.0.max_refused=0.5", "evaluate.actors=2", "finetune.micro_batch=4"]
    grow(values, *free)
    assert work.trained == work.asked == []
    added(before, out)


def _warmup(values):
    return {"name": "stage1", "data": "pool", "train": values["finetune"] | {"parts": ["projector"]}}


def test_growth_that_is_cut_off_goes_on(work, values, monkeypatch):
    out = grow(values)
    before = files(out)
    wider = values | {"selectors": [{"name": "random"}, LESS], "budgets": ["20%", "40%"], "seeds": [0, 1]}
    # while picks are written
    write, count = select_run().write_rows, []

    def killed(path, *more):
        count.append(path)
        if len(count) == 3:
            raise KeyboardInterrupt
        write(path, *more)

    monkeypatch.setattr(select_run(), "write_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        grow(wider)
    monkeypatch.setattr(select_run(), "write_rows", write)
    picked = {p: v for p, v in files(out).items() if p.startswith("picks/")}
    assert len(picked) > 2
    added(before, out)
    assert {s.name: s.state for s in status(out)}["sweep"] == "under way"
    # while trials are trained
    work.clear()
    work.stop_at = "less-40pct-s1/train"
    with pytest.raises(KeyboardInterrupt):
        grow(wider)
    done = list(work.trained)
    assert done
    assert len(gather(out).trials) == 1  # its answers are gathered at the end
    work.clear()
    work.stop_at = None
    half = files(out)
    grow(wider)
    assert len(done) + len(work.trained) == 7
    assert not set(done) & set(work.trained)
    added(before, out)
    assert {p: v for p, v in half.items() if p.endswith("result.json")}.items() <= files(out).items()
    assert len(gather(out).trials) == 8
    assert {s.state for s in status(out)} == {"done"}


def select_run():
    from vinnow.select import run

    return run


def test_a_run_of_an_older_version_grows(work, values):
    """Its manifests say nothing of single picks and trials, and its trials do not say what they are made of."""
    out = grow(values)
    for name, inputs in (("select", {"selectors": "[…]", "budgets": "['20%']"}), ("sweep", None)):
        path = f"{out}/stages/{name}.json"
        record = read_json(path)
        runs = " ".join(i["run"] for i in record.pop("items").values() if "run" in i)
        record["inputs"] = inputs or {"trials": runs, "test": "{}"}
        write_json(path, record)
    os.remove(f"{out}/sweep/random-20pct-s0/trial.json")
    result = read_json(f"{out}/{_RESULT}")
    del result["test"]
    write_json(f"{out}/{_RESULT}", result)
    before = files(out)
    work.clear()
    assert {s.state for s in status(out)} == {"done"}
    grow(values)
    assert work.trained == work.asked == []
    grow(values | {"budgets": ["20%", "40%"]})
    assert work.trained == ["random-40pct-s0"]
    added(before, out)
    # one whose config this version does not read is refused, and told by whom it was begun
    saved = read_json(f"{out}/run.json")
    saved["config"]["proxy_of_old"] = 1
    write_json(f"{out}/run.json", saved)
    with pytest.raises(InputError, match=r"proxy_of_old.*begun by vinnow \d"):
        grow(values)


def test_what_was_taken_away_does_not_come_back_as_something_else(work, values):
    """The config that run.json held in between does not know it: its own record does."""
    both = values | {"selectors": [{"name": "random"}, LESS]}
    grow(both)
    grow(values)
    other = values | {"selectors": [{"name": "random"}, LESS | {"config": {"aggregate": "mean"}}]}
    with pytest.raises(
        InputError,
        match=r"less\.config\.aggregate: was 'max', is 'mean'.*select \(picks of 1 choice\), sweep \(1 trial\)",
    ):
        grow(other)
    work.clear()
    grow(both)
    assert work.trained == work.asked == []
