"""Starting the process that Ray's workers fork from, beside a local Ray on a machine without GPUs."""

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
# bytes of a socket's path, by `man 7 unix`
_LONGEST = 107
# devices of NVIDIA, AMD, and of Windows below Linux
_GPUS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")


def forking(wanted: bool | None) -> dict[str, Any]:
    """Return what `ray.init` of a local Ray is told besides, so that its workers are forks; None: if there is no GPU."""
    if wanted is False or (wanted is None and any(map(glob, _GPUS))):
        return {}
    python = start_forks()
    if python is None:
        return {}
    # else two workers are started at once that no fork can be
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    return {"runtime_env": {"py_executable": python}}


def start_forks() -> str | None:
    """Start the server, one a process; return what stands for Python in a command, None where there can be no server.

    It ends with this process. It may be asked at once: who asks waits for its imports.
    """
    global _server
    if _server and _server.process.poll() is None:
        return _server.python
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
    _server = _Server(process, shlex.join([sys.executable, "-ISs", str(_HERE / "client.py"), path]))
    return _server.python


@dataclass(frozen=True)
class _Server:
    process: "subprocess.Popen[bytes]"
    python: str


_server: _Server | None = None
