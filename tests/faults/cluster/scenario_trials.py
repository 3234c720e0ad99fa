"""Trials of several processes, whose nodes are lost: a minute and more, for `benchmarks/faults.py` and not the suite."""

import pytest
from nodes import has_state
from trials import QUESTIONS, STATES, STEPS, TRAINING, answered, done_again, held, steps, trial, write
from vinnow.store.tables import EVALS, read_rows
from vinnow.train.run import TrainReport

pytestmark = pytest.mark.timeout(900)


def test_nodes_of_a_trial_of_two_workers_are_lost(nodes, sources, undisturbed_sweep, tmp_path, account):
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
    whole = TrainReport.read(str(trial(undisturbed_sweep, name) / "train"))
    assert [loss for _, loss, _ in report.curve] == pytest.approx([loss for _, loss, _ in whole.curve], rel=1e-4)
    a, b = (
        read_rows(trial(o, name) / "eval/evals.parquet", EVALS)["sample"].to_pylist() for o in (out, undisturbed_sweep)
    )
    assert a == b
    account("answers", answered(out), QUESTIONS, done_again(out))
    nodes.idle()
