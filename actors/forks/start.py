"""Starting the process that Ray's workers fork from, beside a local Ray on a machine without GPUs."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from .client import RAY_SCRIPT, SOCKET

_HERE = Path(__file__).resolve().parent
CLIENT = _HERE / "client.py"
# bytes of a socket's path, by `man 7 unix`
_LONGEST = 107
# devices of NVIDIA, AMD, and of Windows below Linux
_GPUS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")


@contextmanager
def forked_workers(wanted: bool | None) -> Iterator[None]:
    """Have the workers of a local Ray that is started in the body be forks; None: if the machine has no GPU.

    Ray's daemons start a worker by running a script of Ray's, and are given `client.py` for it.
    """
    from ray._private import ray_constants

    named = ray_constants.SETUP_WORKER_FILENAME
    script = os.path.join(os.path.dirname(ray_constants.__file__), "workers", named)
    path = start_forks() if wanted or (wanted is None and not any(map(glob, _GPUS))) else None
    if path is None or not os.path.exists(script):
        yield
        return
    os.environ.update({SOCKET: path, RAY_SCRIPT: script})
    # Ray joins the name to its folder: a whole path stays what it is
    ray_constants.SETUP_WORKER_FILENAME = str(CLIENT)
    try:
        yield
    finally:
        ray_constants.SETUP_WORKER_FILENAME = named
        del os.environ[SOCKET], os.environ[RAY_SCRIPT]


def start_forks() -> str | None:
    """Start the server, one a process; return its socket, None where there can be no server.

    It ends with this process. It may be asked at once: who asks waits for its imports.
    """
    global _server
    if _server and _server.process.poll() is None:
        return _server.path
    folder = tempfile.mkdtemp(prefix="vinnow-forks-")
    path = os.path.join(folder, "line")
    if len(os.fsencode(path)) > _LONGEST or not sys.platform.startswith("linux"):
        os.rmdir(folder)
        return None
    paths = [str(_HERE.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    # libraries count threads when they are loaded; a fork takes its own number
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "vinnow.actors.forks.server", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    _server = _Server(process, path)
    return _server.path


@dataclass(frozen=True)
class _Server:
    process: "subprocess.Popen[bytes]"
    path: str


_server: _Server | None = None
