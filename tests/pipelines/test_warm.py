"""Trials in a process that stays give what trials in processes of their own give, and lose nothing when it is killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from finished import values_of
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.run import evaluate
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.sweep import RESULT, Trial, run_sweep
from vinnow.pipelines.runs.warm import is_warm
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, read_rows
from vinnow.train.config import TrainConfig
from vinnow.train.run import TrainReport, read_log, train

LORA = {"parts": ["projector", "lora"], "lora": {"r": 4, "alpha": 8}}
MORES = {"parts": ["projector", "mores"], "mores": {"rank": 2}}
LONG = {"max_steps": 30}
# name, what its training differs in: the first and the last are one and the same, with others between them
KINDS = (("full", {}), ("lora", LORA), ("mores", MORES), ("undisturbed", LONG), ("again", {}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's config, for its folder and its Ray; one process for all of its trials."""
    folder = tmp_path_factory.mktemp("warm")
    return resolve(values_of(folder) | {"out": str(folder / "out"), "sweep": {"concurrent": 1}})


@pytest.fixture(scope="module")
def training(tiny_pool, tiny_model):
    return {
        "model": tiny_model,
        "pool": tiny_pool,
        "global_batch": 8,
        "micro_batch": 4,
        "lr": 1e-3,
        "max_steps": 6,
        "max_len": 256,
        "resume_steps": 2,
        "seed": 5,
    }


def trial_of(run, name, training, pool, **changes):
    folder = os.path.join(run.out, "sweep", name)
    config = TrainConfig.parse(training | changes)
    asked = EvalConfig(model=f"{folder}/train/model", pool=pool, run=name, max_new_tokens=4)
    return Trial(name, "random", "10%", 0, folder, config, asked)


@pytest.fixture(scope="module")
def swept(run, training, target_pool, ray_cluster):
    os.makedirs(run.out, exist_ok=True)
    trials = [trial_of(run, name, training, target_pool, **changes) for name, changes in KINDS]
    return {t.name: (t, result) for t, result in zip(trials, run_sweep(run, trials), strict=True)}


@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_warm_trial_gives_what_processes_of_its_own_give(name, swept, tmp_path):
    trial, result = swept[name]
    cold = train(trial.train, str(tmp_path / "train"))
    asked = trial.evaluate.model_copy(update={"model": cold.model})
    answers = evaluate(asked, str(tmp_path / "eval"))
    warm = TrainReport.read(f"{trial.folder}/train")
    assert [row[:2] for row in warm.curve] == [row[:2] for row in cold.curve]
    assert weights(warm.model) == weights(cold.model)
    assert rows(f"{trial.folder}/eval/evals.parquet") == rows(answers.path)
    assert result["accuracy"] == answers.accuracy


def test_one_process_did_all_and_kept_nothing_of_the_trials_between(swept):
    reports = {name: TrainReport.read(f"{trial.folder}/train") for name, (trial, _) in swept.items()}
    assert len({r.engine["pid"] for r in reports.values()}) == 1
    assert weights(reports["full"].model) == weights(reports["again"].model)
    assert not any(Path(t.folder, "train", "states").exists() for t, _ in swept.values())


def test_a_killed_process_is_replaced_and_its_trial_goes_on(run, swept, training, target_pool):
    long = trial_of(run, "long", training, target_pool, **LONG)
    killed = []

    def kill():
        log, engine = Path(long.folder, "train", "log.jsonl"), Path(long.folder, "train", "engine.json")
        while not (log.exists() and log.read_text().count("\n") > 10):
            time.sleep(0.02)
        killed.append(read_json(engine)["pid"])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    run_sweep(run, [long])
    thread.join()
    went_on, whole = (TrainReport.read(f"{t.folder}/train") for t in (long, swept["undisturbed"][0]))
    assert went_on.engine["pid"] != killed[0]
    assert went_on.curve == whole.curve
    assert weights(went_on.model) == weights(whole.model)
    assert [row["step"] for row in read_log(f"{long.folder}/train/log.jsonl")] == list(range(1, 31))
    assert Path(long.folder, RESULT).exists()


def test_what_cannot_share_a_process_does_not(run, training, target_pool):
    assert is_warm(trial_of(run, "x", training, target_pool))
    for changes in ({"workers": 2}, {"zero_stage": 3}):
        assert not is_warm(trial_of(run, "x", training, target_pool, **changes))
    many = trial_of(run, "x", training, target_pool)
    object.__setattr__(many, "evaluate", many.evaluate.model_copy(update={"actors": 2}))
    assert not is_warm(many)


def weights(folder):
    return {p.name: p.read_bytes() for p in Path(folder).glob("*.safetensors")}


def rows(path):
    return read_rows(path, EVALS).to_pylist()
