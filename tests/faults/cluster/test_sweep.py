"""A sweep on several nodes: a node with trials, and the driver itself, are lost; it ends as an undisturbed one does."""

import pytest
from trials import QUESTIONS, TRIALS, answered, done, done_again, frozen, process_of, same, trial, under_way, write
from vinnow.train.run import TrainReport

# each is a whole command or three, on a machine that may do much else
pytestmark = pytest.mark.timeout(900)


def test_a_node_with_a_trial_is_lost(nodes, sources, undisturbed_sweep, tmp_path, account):
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
    same(out, undisturbed_sweep)
    account("answers", answered(out), QUESTIONS * len(TRIALS), done_again(out))
    nodes.idle()


def test_the_driver_is_killed_twice(nodes, sources, undisturbed_sweep, tmp_path, account):
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
    same(out, undisturbed_sweep)
    account("answers", answered(out), QUESTIONS * len(TRIALS), done_again(out))
    nodes.idle()
