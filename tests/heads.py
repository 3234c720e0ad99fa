"""A one-node Ray cluster of a test's own, which takes jobs on loopback and asks for a token; ended by its process."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

BIN = Path(sys.executable).parent
START_S, STOP_S = 60, 10


@dataclass(frozen=True)
class Head:
    """Where a cluster takes jobs, and the file of its token."""

    address: str
    token: Path

    def env(self, **more: str) -> dict[str, str]:
        """The environment of who may use it, without what would lead elsewhere or put the repository on the path."""
        return clean_env(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(self.token)) | more


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held at once, so that they differ."""
    held = []
    while len(held) < count:
        server = socket.create_server(("127.0.0.1", 0))
        held.append(server)
        if 10_002 <= server.getsockname()[1] <= 19_999:  # Ray's workers take these
            count += 1
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return [p for p in ports if not 10_002 <= p <= 19_999]


def clean_env(**more: str) -> dict[str, str]:
    """The environment without what would lead to another cluster or put the repository on the path."""
    gone = {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTHONPATH"}
    kept = {k: v for k, v in os.environ.items() if k not in gone}
    return kept | {"PATH": f"{BIN}:{kept['PATH']}"} | more


@contextmanager
def started_head() -> Iterator[Head]:
    """Start a head that listens on loopback with a token of its own; only its process is ended afterwards."""
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
    head = Head(f"http://127.0.0.1:{dashboard}", folder / "token")
    with open(os.open(head.token, os.O_CREAT | os.O_WRONLY, 0o600), "w") as sink:
        sink.write(secrets.token_hex(32))
    command = [str(BIN / "ray"), "start", "--head", "--block", *(f"--{k}={v}" for k, v in options.items())]
    log = folder / "head.log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, env=head.env(), cwd=folder, stdout=sink, stderr=sink, text=True)
    try:
        _wait_for(head, process, log)
        yield head
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: subprocess.Popen[str]) -> None:
    """End a head and all that it has started, by their ids; asked by a signal it would drain for half a minute."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for child in below:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.kill()
    process.wait(STOP_S)
    psutil.wait_procs(below, timeout=STOP_S)


def _wait_for(head: Head, process: subprocess.Popen[str], log: Path) -> None:
    """Return when the dashboard takes jobs; fail with the head's own words when it ends or is late."""
    url = f"{head.address}/api/jobs/"
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {head.token.read_text()}"})
    for _ in range(START_S * 5):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(asked, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the head does not take jobs at {head.address}:\n{log.read_text()[-3000:]}")
