"""A selection as a Ray job: a head of its own, the package brought by `py_modules`, picks at the end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from vinnow.store.tables import PICKS, read_rows

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S, STOP_S, JOB_S = 60, 40, 90


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held at once, so that they differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def clean_env(**more: str) -> dict[str, str]:
    """The environment without what would lead to another cluster or put the repository on the path."""
    gone = {"RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTHONPATH"}
    kept = {k: v for k, v in os.environ.items() if k not in gone}
    return kept | {"PATH": f"{BIN}:{kept['PATH']}", "RAY_AUTH_MODE": "disabled"} | more


def wait_for_head(address: str, head: subprocess.Popen[str], log: Path) -> None:
    """Return when the dashboard takes jobs; fail with the head's own words when it ends or is late."""
    for _ in range(START_S * 5):
        if head.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{address}/api/jobs/", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the head does not take jobs at {address}:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The job address of a one-node cluster of our own; only its process group is ended afterwards."""
    # Ray's sockets live below its folder, and their paths may not pass 107 bytes: not pytest's tmp_path
    folder = Path(tempfile.mkdtemp(prefix="vn"))
    port, dashboard, client, agent = free_ports(4)
    options = {
        "port": port,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "num-cpus": 2,
        "object-store-memory": 200_000_000,
        "temp-dir": folder,
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", *(f"--{k}={v}" for k, v in options.items())]
    log = folder / "head.log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, env=clean_env(), cwd=folder, stdout=sink, stderr=sink, text=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for_head(address, process, log)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The package as a job brings it: its folders and root files in a folder that must be called vinnow."""
    target = tmp_path_factory.mktemp("job") / "vinnow"
    beside = {"tests", "benchmarks", "docs", "runs", "build"}
    left_out = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")

    def ignored(folder: str, names: list[str]) -> set[str]:
        return set(left_out(folder, names)) | (beside & set(names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, target, ignore=ignored)
    return target


def submit(head: str, package: Path, cwd: Path, *command: str) -> subprocess.Popen[str]:
    """Begin `ray job submit`, which stays until the job's end; its exit code is the job's."""
    line = [str(BIN / "ray"), "job", "submit", "--address", head]
    line += ["--runtime-env-json", json.dumps({"py_modules": [str(package)]}), "--", *command]
    return subprocess.Popen(line, env=clean_env(), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def selecting(pool: str, selector: str, out: Path) -> str:
    """Return the command of a selection."""
    return f"python -m vinnow select --pool {pool} --selector {selector} --budget 10% --budget 25 --out {out}"


@pytest.mark.slow
def test_a_submitted_selection_writes_its_picks_and_a_wrong_one_fails_with_the_near_name(
    head, package, tiny_pool, tmp_path
):
    """Both at a time: a job's start is most of what it takes."""
    which = "python -c 'import vinnow.pool.reader as r; print(r.__file__)'"
    out, none = tmp_path / "out", tmp_path / "none"
    right = submit(head, package, tmp_path, "sh", "-c", f"{which} && {selecting(tiny_pool, 'random', out)}")
    wrong = submit(head, package, tmp_path, *selecting(tiny_pool, "randon", none).split())
    said, refused = right.communicate(timeout=JOB_S)[0], wrong.communicate(timeout=JOB_S)[0]
    assert right.returncode == 0, said
    assert "succeeded" in said
    # unpacked by Ray below its own folder, not the installed tree of the repository
    where = next(line for line in said.splitlines() if line.strip().endswith("pool/reader.py"))
    assert "runtime_resources" in where
    assert str(ROOT) not in where
    for name, rows in (("random-10pct", 6), ("random-25", 25)):
        assert read_rows(str(out / "picks" / f"{name}.parquet"), PICKS).num_rows == rows
        assert len(json.loads((out / "picks" / f"{name}.json").read_text())) == rows
    assert wrong.returncode != 0
    assert "did you mean 'random'" in refused
    assert "Traceback" not in refused.split("did you mean")[0]
    assert not none.exists()
