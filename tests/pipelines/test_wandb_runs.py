"""A sweep's runs at Weights & Biases are whole when it ends, and what is not is told: real actors, real files."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from offline_runs import kept_runs, read_wandb
from tuned import sweep_of

pytest.importorskip("wandb")

INLINE = """
import os, sys
from ray.air.integrations.wandb import _QueueItem
from vinnow.pipelines.runs.sweeping.wandb_runs import Keeper
import psutil

class Queue:
    rows = [{"train/loss": 0.5, "training_iteration": n} for n in range(3)]
    def get(self):
        return (_QueueItem.RESULT, self.rows.pop(0)) if self.rows else (_QueueItem.END, None)

out = sys.argv[1]
keeper = Keeper(out, Queue(), [], [], variables={"WANDB_MODE": "offline"}, project="p", name="one", dir=out)
assert keeper.run() == 3
# what is below an actor is killed with it
print([p.name() for p in psutil.Process().children(recursive=True)], flush=True)
os._exit(0)
"""


def test_a_run_s_file_is_whole_before_its_actor_may_be_killed(tmp_path):
    """W&B's process writes the file as it ends, which `finish` does not wait for."""
    line = [sys.executable, "-c", textwrap.dedent(INLINE), str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[]"]), done.stderr
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    run = read_wandb(path)
    assert (run["name"], len(run["history"])) == ("one", 3)


@pytest.fixture
def sweep(tmp_path, ray_cluster, monkeypatch):
    """Carry out a sweep of trials that have a training's log each; `faults`: of a trial's actors, and in how many tries."""
    from vinnow.pipelines.runs.sweeping import wandb_runs

    monkeypatch.setenv("WANDB_MODE", "offline")

    class Faulty(wandb_runs.Keeper):
        def _handle_result(self, result):
            fault, times = json.loads((tmp_path / "faults").read_text()).get(self._trial_name, ("", 0))
            tries = tmp_path / f"tries-{self._trial_name}"
            if self.rows == 2:
                tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
                if len(tries.read_text()) <= times:
                    if fault == "dies":
                        os._exit(1)
                    if fault == "raises":
                        raise OSError("no room on the disk")
                    self.rows -= 1  # as if it had not come
            return super()._handle_result(result)

    class Wandb(wandb_runs.Wandb):
        _logger_actor_cls = Faulty

    def carry_out(**faults):
        config, trials = sweep_of(tmp_path)
        for trial in trials:
            log = Path(json.loads(trial.config["trial"])["folder"], "train/log.jsonl")
            log.parent.mkdir(parents=True)
            log.write_text("".join(json.dumps({"step": n, "loss": 1 / n, "lr": 0.1}) + "\n" for n in range(1, 5)))
        (tmp_path / "faults").write_text(json.dumps({n.replace("_", "-20pct-"): f for n, f in faults.items()}))
        callback = Wandb(config)
        callback.setup()
        for trial in trials:
            callback.log_trial_start(trial)
        for trial in trials:
            callback.log_trial_result(1, trial, {"accuracy": 0.25})
            callback.log_trial_end(trial)
        callback.on_experiment_end(trials)
        assert callback._trial_logging_actors == {}
        return kept_runs(config.out)

    return carry_out


def check(run):
    losses = [row["train/loss"] for row in run["history"] if "train/loss" in row]
    assert losses == [pytest.approx(1 / n) for n in range(1, 5)]
    assert run["history"][-1]["accuracy"] == 0.25


@pytest.mark.slow
def test_an_actor_that_ends_with_less_than_it_was_sent_is_told_and_its_run_sent_again(sweep, capfd):
    kept, lost = sweep(random_s0=("dies", 1), xmas_s0=("drops", 1))
    said = " ".join(capfd.readouterr().err.split())
    for name, why in (
        ("random-20pct-s0", "its process has died"),
        ("xmas-20pct-s0", "4 of 5 rows were taken"),
    ):
        assert f"Weights & Biases: the run of {name} is sent again: {why}." in said
    assert said.count("is sent again") == 2
    assert "gets no more" not in said
    assert lost == set()
    assert len(kept) == 2
    for run in kept.values():
        check(run)


@pytest.mark.slow
def test_a_run_that_fails_twice_is_told_and_the_others_are_kept(sweep, capfd):
    kept, lost = sweep(random_s0=("raises", 9))
    said = " ".join(capfd.readouterr().err.split())
    words = "gets no more of this sweep: RuntimeError: the run of random-20pct-s0 failed 2 times: OSError: no room"
    assert said.count(words) == 1
    assert len(kept) + len(lost) == 2
    check(kept["xmas-20pct-s0"])
