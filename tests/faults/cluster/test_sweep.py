"""A sweep on several nodes: a node with trials, and the driver itself, are lost; it ends as an undisturbed one does."""

import json
import time

import psutil
import pytest
from nodes import has_state, until
from pictures import make_records, write_records
from vinnow.store.errors import InputError
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, PICKS, read_rows
from vinnow.train.run import TrainReport

# each is a whole command or three, on a machine that may do much else
pytestmark = pytest.mark.timeout(900)
STEPS, STATES, QUESTIONS = 16, 2, 9
TRAINING = {"max_len": 256, "lr": 1e-3, "global_batch": 8, "micro_batch": 4, "max_steps": STEPS}
TRIALS = ("full-100pct-s0", "random-30pct-s0", "random-60pct-s0")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder, pools = tmp_path_factory.mktemp("sources"), {}
    for name, rows in (("pool", 40), ("test", QUESTIONS)):
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
    """Return the trials that are trained just now and have a state to go on from."""
    begun = [n for n in TRIALS if steps(out, n) > STATES and not (trial(out, n) / "train/train.json").exists()]
    return [n for n in begun if psutil.pid_exists(read_json(trial(out, n) / "train/engine.json")["pid"])]


def done(out):
    return [n for n in TRIALS if (trial(out, n) / "result.json").exists()]


def answered(out):
    """Return which question each trial answered, row by row."""
    rows = read_rows(out / "evals.parquet", EVALS)
    return zip(rows["run"].to_pylist(), rows["sample"].to_pylist(), strict=True)


def done_again(out):
    trained = [TrainReport.read(str(f / "train")) for f in (out / "sweep").iterdir() if (f / "result.json").exists()]
    return f"{sum(again for report in trained for _, again in report.restarts)} steps"


def frozen(command, out, count):
    """Freeze trials as they come, none of them at its end, until there are so many; return their names."""

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


def test_a_node_with_a_trial_is_lost(nodes, sources, undisturbed, tmp_path, account):
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
    assert TrainReport.read(str(trial(out, other) / "train")).engine["pid"] == process.pid
    same(out, undisturbed)
    account("answers", answered(out), QUESTIONS * len(TRIALS), done_again(out))
    nodes.idle()


def test_the_driver_is_killed_twice(nodes, sources, undisturbed, tmp_path, account):
    _, node = nodes.have(2)
    file, out = write(tmp_path, sources)
    first = nodes.start("run", file)
    frozen(first, out, 2)
    first.kill()
    # what the dead driver's job had is free again, though its processes were not even running
    nodes.idle()
    nodes.crash(node)
    second = nodes.start("run", file)
    # one trial at a time, until there is room for another
    (one,) = frozen(second, out, 1)
    nodes.add()
    frozen(second, out, 2)
    process_of(out, one).resume()
    second.until(lambda: done(out) and under_way(out))
    finished = {n: (trial(out, n) / "result.json").stat().st_mtime_ns for n in done(out)}
    second.kill()
    nodes.idle()
    said = nodes.start("run", file).end()
    assert "was cut off" in said
    assert all((trial(out, n) / "result.json").stat().st_mtime_ns == when for n, when in finished.items())
    same(out, undisturbed)
    account("answers", answered(out), QUESTIONS * len(TRIALS), done_again(out))
    nodes.idle()


def test_nodes_of_a_trial_of_two_workers_are_lost(nodes, sources, undisturbed, tmp_path, account):
    """The node of a worker, which Ray Train sees to, and then that of the trial's own driver, which Tune does."""
    nodes.have(2)
    name, two = "random-30pct-s0", TRAINING | {"resume_steps": STATES, "workers": 2}
    file, out = write(tmp_path, sources, budgets=["30%"], finetune=two, sweep={"full": False})
    training = trial(out, name) / "train"
    command = nodes.start("run", file)
    worker = held(command, out, name, lambda: has_state(training) and steps(out, name) > STATES)
    (driver,) = nodes.actors("ImplicitFunc")
    place = nodes.node_of(driver["Pid"])
    nodes.crash(next(n for n in nodes.all() if n is not place))
    nodes.add()
    if worker.is_running():
        worker.resume()
    held(command, out, name, lambda: (training / "restarts.jsonl").exists())
    assert nodes.actors("ImplicitFunc") == [driver]
    nodes.crash(place)
    nodes.add()
    said = command.end()
    report = TrainReport.read(str(training))
    assert len(report.restarts) == 2
    assert f"{name} was cut off 2 times (a worker, a node or the driver was lost)" in said
    assert [step for step, _, _ in report.curve] == list(range(1, STEPS + 1))
    # of one worker: the same steps, but for the order in which gradients are added up
    whole = TrainReport.read(str(trial(undisturbed, name) / "train"))
    assert [loss for _, loss, _ in report.curve] == pytest.approx([loss for _, loss, _ in whole.curve], rel=1e-4)
    a, b = (read_rows(trial(o, name) / "eval/evals.parquet", EVALS)["sample"].to_pylist() for o in (out, undisturbed))
    assert a == b
    account("answers", answered(out), QUESTIONS, done_again(out))
    nodes.idle()


def held(command, out, name, condition):
    """Freeze the first worker of a trial's training when something is true, before its last step; return its process."""

    def inside():
        if not steps(out, name):
            return None
        try:
            process = process_of(out, name)
            process.suspend()
            until(lambda: process.status() == psutil.STATUS_STOPPED)
        except (psutil.NoSuchProcess, InputError):
            return None
        if condition():
            assert steps(out, name) < STEPS
            return process
        process.resume()
        time.sleep(0.05)  # it does a step meanwhile, not all that are left
        return None

    return command.until(inside)
