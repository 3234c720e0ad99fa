"""A run whose sweep is disturbed: its YAML, how far its trials are, and their processes, to be frozen at a state."""

import json
import time

import psutil
from nodes import until
from vinnow.store.errors import InputError
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, PICKS, read_rows
from vinnow.train.run import TrainReport

STEPS, STATES, QUESTIONS = 16, 2, 9
TRAINING = {"max_len": 256, "lr": 1e-3, "global_batch": 8, "micro_batch": 4, "max_steps": STEPS}
TRIALS = ("full-100pct-s0", "random-30pct-s0", "random-60pct-s0")


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
