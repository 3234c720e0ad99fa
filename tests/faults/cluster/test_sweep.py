"""A sweep on several nodes: a node with trials, and the driver itself, are lost; it ends as an undisturbed one does."""

import json

import psutil
import pytest
from nodes import until
from pictures import make_records, write_records
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, PICKS, read_rows
from vinnow.train.run import TrainReport

STEPS, STATES = 16, 2
TRAINING = {"max_len": 256, "lr": 1e-3, "global_batch": 8, "micro_batch": 8, "max_steps": STEPS}
TRIALS = ("full-100pct-s0", "random-30pct-s0", "random-60pct-s0")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder, pools = tmp_path_factory.mktemp("sources"), {}
    for name, rows in (("pool", 40), ("test", 9)):
        (folder / name).mkdir()
        source = write_records(folder / name, *make_records(rows, seed=rows))
        pools[name] = {"source": source, "image_root": str(folder / name / "images")}
    return pools


def write(folder, sources, **changes):
    """Write a run's YAML, and return it with the run's folder."""
    values = sources | {
        "out": str(folder / "out"),
        "model": {"twin": {}},
        "selectors": [{"name": "random"}],
        "budgets": ["30%", "60%"],
        "finetune": TRAINING | {"resume_steps": STATES},
        "evaluate": {"benchmark": "short_answer", "max_len": 256, "max_new_tokens": 2},
        "sweep": {"concurrent": 2},
    }
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(json.dumps(values | changes))
    return folder / "run.yaml", folder / "out"


@pytest.fixture(scope="module")
def undisturbed(nodes, sources, tmp_path_factory):
    nodes.have(2)
    file, out = write(tmp_path_factory.mktemp("undisturbed"), sources)
    nodes.start("run", file).end()
    return out


def trial(out, name):
    return out / "sweep" / name


def steps(out, name):
    log = trial(out, name) / "train/log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def process_of(out, name):
    return psutil.Process(read_json(trial(out, name) / "train/engine.json")["pid"])


def under_way(out):
    """Return the trials that have a state to go on from and steps since, and are not trained."""
    return [n for n in TRIALS if steps(out, n) > STATES and not (trial(out, n) / "train/train.json").exists()]


def done(out):
    return [n for n in TRIALS if (trial(out, n) / "result.json").exists()]


def frozen(command, out, count):
    """Freeze trials as they come, each between its first state and its last step, until there are so many."""

    def all_inside():
        for name in (names := under_way(out)):
            process = process_of(out, name)
            process.suspend()
            until(lambda p=process: p.status() == psutil.STATUS_STOPPED)
        names = [n for n in names if n in under_way(out)]
        return names if len(names) == count else None

    return command.until(all_inside)


def same(out, undisturbed):
    """Hold a run's tables against those of the one that nobody disturbed, value by value."""
    for name in sorted(p.name for p in (undisturbed / "picks").glob("*.parquet")):
        assert read_rows(out / "picks" / name, PICKS).equals(read_rows(undisturbed / "picks" / name, PICKS))
    mine, other = (
        sorted(json.dumps(row, sort_keys=True) for row in read_rows(o / "evals.parquet", EVALS).to_pylist())
        for o in (out, undisturbed)
    )
    assert mine == other
    for name in TRIALS:
        a, b = (TrainReport.read(str(trial(o, name) / "train")) for o in (out, undisturbed))
        assert a.curve == b.curve
        assert [step for step, _, _ in a.curve] == list(range(1, STEPS + 1))
        a, b = (read_json(trial(o, name) / "result.json") for o in (out, undisturbed))
        assert {n: a[n] for n in ("rows", "accuracy", "by_task", "run")} == {
            n: b[n] for n in ("rows", "accuracy", "by_task", "run")
        }


def test_a_node_with_a_trial_is_lost(nodes, sources, undisturbed, tmp_path):
    nodes.have(2)
    file, out = write(tmp_path, sources)
    command = nodes.start("run", file)
    lost, other = frozen(command, out, 2)
    process = process_of(out, other)
    nodes.crash(nodes.node_of(process_of(out, lost).pid))
    process.resume()
    said = command.end()
    assert f"{lost} was cut off once (a worker, a node or the driver was lost)" in said
    assert said.count("was cut off") == 1
    restarts = {n: len(TrainReport.read(str(trial(out, n) / "train")).restarts) for n in TRIALS}
    assert restarts == dict.fromkeys(TRIALS, 0) | {lost: 1}
    assert process_of_report(out, other) == process.pid
    same(out, undisturbed)
    nodes.idle()


def process_of_report(out, name):
    return TrainReport.read(str(trial(out, name) / "train")).engine["pid"]


def test_the_driver_is_killed_twice(nodes, sources, undisturbed, tmp_path):
    nodes.have(2)
    file, out = write(tmp_path, sources)
    first = nodes.start("run", file)
    frozen(first, out, 2)
    first.kill()
    # what the dead driver's job had is free again, though its processes were not even running
    nodes.idle()
    second = nodes.start("run", file)
    second.until(lambda: done(out) and under_way(out))
    finished = {n: (trial(out, n) / "result.json").stat().st_mtime_ns for n in done(out)}
    second.kill()
    nodes.idle()
    said = nodes.start("run", file).end()
    assert "was cut off" in said
    assert all((trial(out, n) / "result.json").stat().st_mtime_ns == when for n, when in finished.items())
    same(out, undisturbed)
    nodes.idle()
