"""A command that is interrupted, or whose Ray is gone, ends in seconds and one line, and leaves nothing running."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest


def test_ctrl_c_ends_a_command_that_is_still_being_imported():
    code = "import os, signal, sys\nimport vinnow.__main__ as m\n"
    code += (
        "sys.meta_path.insert(0, type('Late', (), {'find_spec': lambda *a: os.kill(os.getpid(), signal.SIGINT)})())\n"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}m.main()"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.fixture
def training(tiny_pool, tiny_model, tmp_path):
    """A training that would go on for hours, in a process group of its own; killed afterwards whatever happens."""
    sets = [f"model={tiny_model}", f"pool={tiny_pool}", "max_len=256", "global_batch=4", "micro_batch=4", "epochs=9999"]
    (tmp_path / "train.yaml").write_text("parts: [projector]\n")
    line = [sys.executable, "-m", "vinnow", "train", str(tmp_path / "train.yaml"), "--out", str(tmp_path / "out")]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [*line, *(part for s in [*sets, "ray.dashboard=false", "ray.object_store_mb=100"] for part in ("--set", s))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    yield process
    for left in below(process):
        left.kill()
    process.kill()


def below(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def daemons(process, name):
    """Wait until a process of this name runs below a command, and return all that do."""
    for _ in range(1500):
        processes = below(process)
        if any(name in named(p) for p in processes):
            return processes
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    raise AssertionError(f"no {name} in some minutes")


def named(process):
    """A process's name and what it calls itself, which is what Ray's workers show."""
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.NoSuchProcess:
        return ""


def ended(process, within):
    begin = time.monotonic()
    said = process.communicate(timeout=60)
    assert time.monotonic() - begin < within
    return said


def gone(processes):
    """Say which of these still run a moment later."""
    psutil.wait_procs(processes, timeout=5)
    return [p.pid for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("runs", ["raylet", "ray::RayTrainWorker"])
def test_ctrl_c_ends_a_training_within_seconds(training, runs):
    """While Ray starts, and when workers do."""
    started = daemons(training, runs)
    started += below(training)
    os.killpg(training.pid, signal.SIGINT)
    out, err = ended(training, 5)
    assert training.returncode == 130
    assert out == ""
    assert "ended by Ctrl-C. What is finished stays: run the same command again to go on." in err
    assert "Traceback" not in err
    assert gone(started) == []


def test_a_ray_that_is_gone_is_one_line(training):
    started = daemons(training, "ray::TrainController")
    started += below(training)
    next(p for p in started if "gcs_server" in p.name()).kill()
    _, err = ended(training, 30)
    assert training.returncode == 1
    assert "failed: Ray's gcs_server has ended" in err
    assert "Traceback" not in err
    assert gone(started) == []


def test_a_second_ctrl_c_ends_what_does_not_let_go(tmp_path):
    code = (
        "import time\nfrom vinnow.pipelines.cli import ending\nending.GRACE = 60\n"
        "with ending.listening():\n    try:\n        print('on', flush=True); time.sleep(60)\n"
        "    finally:\n        time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended(process, 4)
    assert process.returncode == 130


def test_sigterm_ends_with_its_own_code(tmp_path):
    code = "import time\nfrom vinnow.pipelines.cli import ending\n"
    code += "with ending.listening():\n    print('on', flush=True)\n    time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    process.terminate()
    _, err = ended(process, 4)
    assert (process.returncode, err.splitlines()[0].split(".")[0]) == (143, "ended by SIGTERM")


LATE = """
import signal, threading
from vinnow.pipelines.cli import ending
out, heard = threading.Event(), ending._heard
def late(*signal_seen):
    out.wait(20)
    heard(*signal_seen)
ending._heard = late
ending.SAYING = 20
with ending.listening():
    try:
        with ending.going_on("The job goes on."):
            signal.raise_signal(signal.SIGINT)
    finally:
        out.set()
"""


def test_what_goes_on_is_said_though_the_work_was_left_before_the_signal_was_heard():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "ended by Ctrl-C. The job goes on.\n")


def test_what_went_on_is_not_said_of_what_comes_after_it():
    code = LATE.replace("signal.raise_signal(signal.SIGINT)", "pass").replace(
        "    finally:", "        signal.raise_signal(signal.SIGINT)\n    finally:"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr == "ended by Ctrl-C. What is finished stays: run the same command again to go on.\n"
