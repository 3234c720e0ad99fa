"""What a sweep's callbacks make of trials that end in every way: counted, bounded, told once where a tracker fails."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tuned import sweep_of
from vinnow.pipelines.runs.run import run_stages
from vinnow.pipelines.runs.sweeping.curves import Curves
from vinnow.pipelines.runs.sweeping.gauges import Gauges
from vinnow.pipelines.runs.sweeping.ready import check_sweep_trackers
from vinnow.pipelines.runs.sweeping.tensorboard import TensorBoard
from vinnow.pipelines.runs.watch import FAILED
from vinnow.store import meters
from vinnow.store.errors import InputError
from vinnow.train import trackers


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(meters, "_BOARD", meters._Board())

    def of(meter):
        return {place: value for (m, place), value in meters._BOARD._gauges.items() if m is meter}

    return of


def result(accuracy):
    return {"accuracy": accuracy, "rows": 9, "steps": 3, "loss": 1.0, "training_iteration": 1}


def test_trials_are_counted_as_they_end(tmp_path, told):
    config, (first, second) = sweep_of(tmp_path)
    gauges = Gauges(config)
    gauges.setup()
    assert told(meters.TRIALS) == {("done",): 0, ("running",): 0, ("failed",): 0, ("waiting",): 2}
    for trial, said in ((first, result(0.5)), (second, {FAILED: "no room"})):
        gauges.on_trial_start(0, [], trial)
        gauges.on_trial_result(0, [], trial, said)
        gauges.on_trial_complete(0, [], trial)
    assert told(meters.TRIALS) == {("done",): 1, ("running",): 0, ("failed",): 1, ("waiting",): 0}
    gauges.on_trial_start(0, [], second)
    gauges.on_trial_result(0, [], second, result(0.25))
    gauges.on_trial_complete(0, [], second)
    assert told(meters.TRIALS)[("failed",)] == 0
    assert told(meters.ACCURACY) == {("random", "20%", "0", ""): 0.5, ("xmas", "20%", "0", ""): 0.25}


def test_a_sweep_of_a_thousand_trials_adds_a_line_a_choice(tmp_path, told):
    config, tuned = sweep_of(tmp_path, seeds=list(range(100)), budgets=["10%", "20%", "30%", "40%", "50%"])
    assert len(tuned) == 1000
    gauges = Gauges(config)
    for number, trial in enumerate(tuned):
        gauges.on_trial_result(0, [], trial, result(number % 2))
    reached = told(meters.ACCURACY)
    assert len(reached) == 10
    assert {seed for _, _, seed, _ in reached} == {"mean"}
    assert all(0.4 < value < 0.6 for value in reached.values())


def test_what_a_tracker_cannot_write_is_told_once(tmp_path, capsys):
    config, (first, second) = sweep_of(tmp_path)
    Path(config.out).mkdir()
    Path(config.out, "sweep").write_text("in the way")
    board = TensorBoard()
    for trial in (first, second):
        board.log_trial_start(trial)
        board.log_trial_result(1, trial, result(0.5))
        board.log_trial_end(trial)
    assert capsys.readouterr().err.replace("\n", " ").count("TensorBoard gets no more of this sweep") == 1


def test_a_curve_is_read_once_whatever_becomes_of_its_log(tmp_path):
    log = tmp_path / "train/log.jsonl"
    log.parent.mkdir()
    curves = Curves()
    assert curves.new(str(tmp_path)) == []
    lines = [json.dumps({"step": n, "loss": 1.0}) + "\n" for n in range(1, 7)]
    log.write_text("".join(lines[:3]) + lines[3][:5])
    assert [r["step"] for r in curves.new(str(tmp_path))] == [1, 2, 3]
    log.write_text("".join(lines[:4]))
    assert [r["step"] for r in curves.new(str(tmp_path))] == [4]
    log.write_text("".join(lines[:2]))  # gone on from step 2, in a process of its own
    assert curves.new(str(tmp_path)) == []
    log.write_text("".join(lines))
    assert [r["step"] for r in curves.new(str(tmp_path))] == [5, 6]
    longer = [json.dumps({"step": n, "loss": 1.25}) + "\n" for n in range(1, 9)]
    log.write_text("".join(longer))  # the same, and longer by now
    assert [r["step"] for r in curves.new(str(tmp_path))] == [7, 8]
    assert curves.last(str(tmp_path)) == 8


def test_a_run_whose_trackers_cannot_be_used_is_refused_before_it_begins(tmp_path, monkeypatch):
    config, _ = sweep_of(tmp_path, sweep={"trackers": ["wandb"]})
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SETUP_API_KEY_HOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(trackers, "find_spec", lambda name: SimpleNamespace())
    with pytest.raises(InputError, match="WANDB_MODE=offline"):
        run_stages(config)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_sweep_trackers(config.sweep)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"sweep.trackers: wandb needs the package 'wandb': `pip install 'vinnow\[track\]'`"
    ):
        run_stages(config)
    assert not Path(config.out).exists()
