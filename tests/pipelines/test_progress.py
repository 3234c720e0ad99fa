"""What a bar says: pace, loss, time left, and what is waited for; and what `status` says of a sweep that runs."""

import json

from vinnow.pipelines import progress
from vinnow.pipelines.progress import Pace, bar
from vinnow.pipelines.runs.config import RunConfig
from vinnow.pipelines.runs.sweep_stage import Sweep
from vinnow.pipelines.runs.watch import last_step, under_way


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_pace_and_time_left_come_from_what_was_seen(monkeypatch):
    clock, pace = Clock(monkeypatch), Pace("steps", "workers start")
    pace.saw(0, 0)
    assert pace.text() == "workers start"
    clock.now += 40  # the start is no pace
    pace.saw(10, 210, "loss 2.5000")
    assert pace.text() == "10/210 steps, loss 2.5000"
    clock.now += 5
    pace.saw(60, 210, "loss 1.2500")
    assert pace.text() == "60/210 steps, loss 1.2500, 10.0 per second, 15 s left"
    clock.now += 155
    pace.saw(70, 210)
    assert pace.text() == "70/210 steps, 2.7 s each, 6 min left"
    pace.saw(210, 210)
    assert "left" not in pace.text()


def test_parts_that_were_there_are_no_pace(monkeypatch):
    clock, pace = Clock(monkeypatch), Pace("parts")
    pace.saw(90, 100)
    clock.now += 10
    pace.saw(91, 100)
    assert pace.text() == "91/100 parts, 10.0 s each, 90 s left".replace("90 s", "2 min")


def test_lines_of_a_log_say_what_is_waited_for(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with bar("train proxy", "steps", "no step yet: workers start") as tell:
        clock.now += 11
        tell(0, 0)
        clock.now += 11
        tell(5, 20, "loss 3.0000")
        clock.now += 11
        tell(20, 20, "loss 1.0000 " + "x" * 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train proxy: no step yet: workers start, after 11 s"
    assert lines[1] == "train proxy: 5/20 steps, loss 3.0000, after 22 s"
    assert lines[-1].startswith("train proxy: 20 steps, loss 1.0000 xxx")
    assert all("?" not in line for line in lines)
    assert len(lines) == 4  # none is broken at 80 columns


def test_status_knows_a_sweep_that_runs(tmp_path):
    folder = tmp_path / "sweep"
    pool = {"source": "a"}
    tree = {"out": str(tmp_path), "pool": pool, "test": pool, "model": {"twin": {}}, "budgets": [1], "finetune": {}}
    stage = Sweep(RunConfig.parse(tree | {"selectors": [{"name": "random"}]}))
    assert stage.progress(str(tmp_path)).state == "waiting"
    for name in ("a", "b", "c", "d"):
        (folder / name / "train").mkdir(parents=True)
    (folder / "a" / "result.json").write_text("{}")
    (folder / "b" / "train" / "log.jsonl").write_text(json.dumps({"step": 7, "total_steps": 50, "loss": 0.5}) + "\n")
    (folder / "c" / "train" / "train.json").write_text("{}")
    stage_status = stage.progress(str(tmp_path))
    assert stage_status.state == "under way"
    assert stage_status.detail == "1 trials finished; b at step 7/50, loss 0.5000; c answers questions; d starts"
    assert under_way(str(folder / "nothing")) == ""
    assert last_step(str(folder / "b" / "train")) == (7, 50, "loss 0.5000")
