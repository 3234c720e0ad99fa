"""Workers as forks of one process: each is what Python would have started, and none outlives whoever asked for it."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from commands import python_line
from ray._private import ray_constants
from vinnow.actors.forks import start
from vinnow.actors.forks.client import SOCKET, plain_worker

ABOUT = """
import json, os, random, signal, sys
import numpy, torch
print(json.dumps({
    "argv": sys.argv, "cwd": os.getcwd(), "read": sys.stdin.read(), "name": __name__, "parent": os.getppid(),
    "environment": dict(os.environ), "threads": torch.get_num_threads(), "group": os.getpgid(0) == os.getpid(),
    "ray": "ray" in sys.modules, "draws": [random.random(), numpy.random.random()],
    "files": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "child": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
}))
print("bye", file=sys.stderr)
raise SystemExit(3)
"""


@pytest.fixture(scope="module")
def python():
    return python_line()


@pytest.fixture
def about(tmp_path):
    file = tmp_path / "about.py"
    file.write_text(ABOUT)

    def run(python, **environment):
        done = subprocess.run(
            [*python, str(file), "a b", "ü"],
            input="given",
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | environment,
        )
        assert (done.returncode, done.stderr) == (3, "bye\n")
        return json.loads(done.stdout)

    return run


def test_a_fork_is_what_python_would_have_started(python, about, tmp_path):
    other, one = about([sys.executable], OMP_NUM_THREADS="2", MINE="x"), about(python, OMP_NUM_THREADS="2", MINE="x")
    for name in ("argv", "cwd", "read", "name", "threads", "ray", "files", "child"):
        assert one[name] == other[name], name
    assert one["environment"].pop(SOCKET)  # for what it starts itself
    assert one["environment"] == other["environment"]
    assert one["environment"]["MINE"] == "x"
    assert one["group"]  # whose signals reach nobody else
    assert one["parent"] == start._server.process.pid
    again = about(python)
    assert (again["threads"], "MINE" in again["environment"]) == (1, False)
    for mine, theirs in zip(again["draws"], one["draws"], strict=True):
        assert mine != theirs


def test_what_libraries_would_have_read_otherwise_is_started_by_python_itself(python, about):
    # torch, accelerate and Ray set these in whoever imports them
    by_themselves = {"TORCHINDUCTOR_CACHE_DIR": "/tmp/x", "PYTORCH_NVML_BASED_CUDA_CHECK": "1", "PYTHONBREAKPOINT": "x"}
    assert about(python, **by_themselves)["parent"] == start._server.process.pid
    assert about(python, HF_HOME="/elsewhere")["parent"] != start._server.process.pid
    gone = [word + "-gone" if word.startswith(SOCKET) else word for word in python]
    assert about(gone)["parent"] == os.getpid()


def test_a_fork_s_own_workers_come_from_the_same_server(python):
    code = "from vinnow.actors.forks.start import start_forks; print(start_forks())"
    said = subprocess.run([*python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [start.start_forks()]


def test_offline_is_as_the_process_was_told(python, tmp_path):
    (tmp_path / "said.py").write_text("from huggingface_hub import constants as c; print(c.HF_HUB_OFFLINE)")
    for told, offline in (("1", True), ("0", False)):
        line = [*python, str(tmp_path / "said.py")]
        done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": told})
        assert done.stdout.split() == [str(offline)]


@pytest.fixture
def sleeping(python, tmp_path):
    file = tmp_path / "sleep.py"
    file.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(60)")

    def begin():
        process = subprocess.Popen([*python, str(file)], stdout=subprocess.PIPE, text=True)
        return process, psutil.Process(int(process.stdout.readline()))

    return begin


def test_it_ends_with_its_asker_and_its_asker_as_it_does(sleeping):
    process, fork = sleeping()
    process.kill()
    fork.wait(10)
    for number in (signal.SIGKILL, signal.SIGSEGV):
        process, fork = sleeping()
        fork.send_signal(number)
        assert process.wait(10) == -number
    process, fork = sleeping()
    process.terminate()  # is passed on
    assert process.wait(10) == -signal.SIGTERM
    assert not fork.is_running()


def test_a_server_ends_with_whoever_started_it(tmp_path):
    code = (
        "from vinnow.actors.forks import start as s; print(s.start_forks(), s._server.process.pid, flush=True); input()"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    path, pid = owner.stdout.readline().split()
    server = psutil.Process(int(pid))
    owner.kill()
    owner.wait()
    server.wait(60)
    assert not os.path.exists(os.path.dirname(path))


def test_where_there_is_a_gpu_nothing_is_forked_unasked(monkeypatch, tmp_path):
    monkeypatch.setattr(start, "_GPUS", (str(tmp_path / "gpu*"),))

    def forks(wanted):
        before = ray_constants.SETUP_WORKER_FILENAME
        with start.forked_workers(wanted):
            inside = ray_constants.SETUP_WORKER_FILENAME, SOCKET in os.environ
        assert (ray_constants.SETUP_WORKER_FILENAME, SOCKET in os.environ) == (before, False)
        assert inside in ((before, False), (str(start.CLIENT), True))
        return inside[1]

    assert (forks(None), forks(False)) == (True, False)
    (tmp_path / "gpu0").touch()
    assert (forks(None), forks(True)) == (False, True)


def test_a_worker_that_wants_another_environment_is_ray_s_own_script_s(monkeypatch):
    monkeypatch.setenv("WIDE", "x")
    line = ["default_worker.py", "--node-id=1", "--language=PYTHON"]

    def of(**context):
        return plain_worker([*line, "--serialized-runtime-env-context=" + json.dumps(context)])

    assert plain_worker(line) == line[:2]
    assert of(env_vars={"WIDE": "${WIDE}y"}, py_executable=sys.executable, command_prefix=[]) == line[:2]
    assert os.environ["WIDE"] == "xy"
    for context in ({"py_executable": "other"}, {"command_prefix": ["cd x &&"]}, {"env_vars": {"A": "${GONE_HERE}"}}):
        assert of(**context) is None
    assert plain_worker(["x.jar", "--language=JAVA"]) is None


def test_ray_s_own_workers_are_forks(ray_cluster):
    @ray_cluster.remote
    def parent():
        return psutil.Process(os.getppid()).cmdline()

    begin = time.monotonic()
    assert "vinnow.actors.forks.server" in ray_cluster.get(parent.remote())
    assert time.monotonic() - begin < 60
