"""`kill -9` of a sweep's driver, twice: what the last try leaves is what one undisturbed run leaves, to the last digit."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import vinnow_line
from finished import STAND_INS, STEP, values_of
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.run import run_stages
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, read_rows
from vinnow.train import run as training
from vinnow.train.run import TrainReport
from vinnow.train.solo import Bases, fit_here


def values(folder):
    """2 selectors × 2 budgets × 2 seeds."""
    tree = values_of(folder) | {
        "proxy": None,
        "features": [],
        "target": None,
        "seeds": [0, 1],
        "budgets": ["20%", "40%"],
    }
    tree |= {"selectors": [{"name": "random"}, {"name": "stratified", "config": {"column": "task"}}]}
    tree["finetune"] = STEP | {"max_steps": 8, "resume_steps": 2}
    return tree | {"ray": {"num_cpus": 2, "object_store_mb": 100, "dashboard": False}}


@pytest.fixture
def undisturbed(tmp_path, monkeypatch):
    """The same run in this process, where trainings are as they are in a sweep's processes."""
    tree = values(tmp_path)
    bases = Bases()
    for (where, name), stand_in in STAND_INS.items():
        monkeypatch.setattr(where, name, stand_in)
    monkeypatch.setattr(training, "_fit", lambda config, out, callbacks: fit_here(config, out, bases))
    run_stages(resolve(json.loads(json.dumps(tree | {"out": str(tmp_path / "once")}))), report=False)
    return tree, tmp_path / "once"


@pytest.mark.timeout(600)
def test_a_sweep_killed_twice_ends_with_the_table_of_an_undisturbed_one(undisturbed, tmp_path):
    tree, once = undisturbed
    out = tmp_path / "killed"
    (tmp_path / "run.yaml").write_text(json.dumps(tree | {"out": str(out)}))
    line = vinnow_line("run", tmp_path / "run.yaml")
    kept: dict[str, float] = {}
    for number in (1, 3):
        _killed_after(number, line, out, tmp_path)
        done = results(out)
        assert kept.items() <= done.items(), "a finished trial was done again"
        assert len(done) < 8
        kept = done
    said = subprocess.run(line, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr[-3000:]
    assert kept.items() <= results(out).items()
    assert len(results(out)) == 8
    # Tune went on with the experiment that it had; a trial that ended just before a kill may not have been told to it
    states = list((out / "tune").glob("experiment_state-*.json"))
    assert "Tune's own state" not in said.stderr
    names = [p.name.rsplit("-", 1)[0] for p in (out / "tune").iterdir() if p.is_dir()]
    assert len(names) == len(set(names)) >= 6
    assert set(names) <= set(results(out))
    assert states
    assert table(out) == table(once)
    for name in results(out):
        mine, theirs = (TrainReport.read(f"{folder}/sweep/{name}/train") for folder in (out, once))
        assert mine.curve == theirs.curve


def results(out):
    """Finished trials, and when they were."""
    return {p.parent.name: p.stat().st_mtime_ns for p in Path(out, "sweep").glob("*/result.json")}


def table(out):
    """Every trial's answers, by its choice."""
    evals = read_rows(f"{out}/evals.parquet", EVALS).to_pylist()
    answers = {}
    for name in results(out):
        run = read_json(f"{out}/sweep/{name}/result.json")["run"]
        answers[name] = sorted((r["sample"], r["answer"], r["score"]) for r in evals if r["run"] == run)
    return answers


def _killed_after(number, line, out, folder):
    """Kill the driver once so many trials are done, in the middle of the next."""
    with open(folder / "words", "a") as sink:
        process = subprocess.Popen(line, stdout=sink, stderr=sink)
        limit = time.monotonic() + 250
        while len(results(out)) < number:
            assert process.poll() is None, (folder / "words").read_text()[-3000:]
            assert time.monotonic() < limit, (folder / "words").read_text()[-3000:]
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
