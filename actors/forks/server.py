"""A process that has imported what Ray's workers need, and forks for each request that comes over its socket.

`python -m vinnow.actors.forks.server SOCKET`: it ends when its standard input does, that is with the process that started
it; its forks go on. A fork is a process as Python would have started it: arguments, environment, folder, standard files,
signals and default seeds are the request's own; only the modules are there already. When it forks it has no thread but
those of allocators, which see to forks themselves, and it never asks for a GPU.
"""

import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# libraries read these when they are imported: a request that has them otherwise is none for this process
_READ_AT_IMPORT = ("HF_", "TRANSFORMERS_", "TORCH_LOGS", "LD_", "PYTHON")
# but `_adopt` carries these over, and Python reads the last two when it comes to use them; Ray sets one in its drivers
_CARRIED = {"HF_HUB_OFFLINE", "PYTHONUNBUFFERED", "PYTHONPATH", "PYTHONBREAKPOINT", "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Request:
    """A process that is asked for: what follows `python` on its command line, and its surroundings."""

    arguments: list[str]
    cwd: str
    environment: dict[str, str]


class Server:
    """Forks for what comes over one socket; `asked` in a fork is what it was made for."""

    def __init__(self, path: str) -> None:
        """Listen; what comes waits until this process has imported all."""
        self.asked: Request | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(256)
        _import_libraries()
        self._before = dict(os.environ)
        # of each fork, the line to whoever asked for it
        self._lines: dict[int, socket.socket] = {}
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Return when standard input ends, and in each fork."""
        while self.asked is None:
            lines = {line.fileno(): pid for pid, line in self._lines.items()}
            ready, _, _ = select.select([0, self._woken, self._listener.fileno(), *lines], [], [])
            if 0 in ready and not os.read(0, 4096):
                return
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            for pid in (lines[i] for i in ready if i in lines):
                self._left(pid)
            if self._listener.fileno() in ready:
                self._take(self._listener.accept()[0])

    def _take(self, line: socket.socket) -> None:
        request, files = _read(line)
        if request is None or not _is_ours(request, self._before) or (pid := _fork()) is None:
            _tell(line, 0)
            line.close()
        elif pid:
            _tell(line, pid)
            self._lines[pid] = line
        else:
            self._forget(line)
            _adopt(request, files)
            self.asked, files = request, []
        for file in files:
            os.close(file)

    def _forget(self, line: socket.socket) -> None:
        """Leave to the server what is its own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (self._listener, line, *self._lines.values()):
            other.close()
        for end in (self._woken, self._waker):
            os.close(end)

    def _left(self, pid: int) -> None:
        """End the fork of someone who has ended."""
        if line := self._lines.pop(pid, None):
            line.close()
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if line := self._lines.pop(pid, None):
                    _tell(line, os.waitstatus_to_exitcode(status))
                    line.close()


def _fork() -> int | None:
    """Return 0 in the fork, its number in the server; None where the machine has no room for one."""
    try:
        return os.fork()
    except OSError:
        return None


def _import_libraries() -> None:
    """Import what workers do. Ray is not among it: what makes a worker, it reads from the environment as it is imported."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    from transformers.models.clip import modeling_clip  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401
    from transformers.models.llava import modeling_llava  # noqa: F401

    from .. import features  # noqa: F401


def _read(line: socket.socket) -> tuple[Request | None, list[int]]:
    """Return a request and its three files; none where its sender left."""
    line.settimeout(10)
    files: list[int] = []
    try:
        head, files, _, _ = socket.recv_fds(line, 8, 3)
        size, body = int.from_bytes(head, "big"), b""
        while len(body) < size and (piece := line.recv(min(1 << 16, size - len(body)))):
            body += piece
        line.settimeout(None)
        if len(files) != 3 or len(body) != size:
            return None, files
        return Request(**json.loads(body.decode("utf-8", "surrogateescape"))), files
    except (OSError, ValueError, TypeError):
        return None, files


def _is_ours(request: Request, before: dict[str, str]) -> bool:
    """Say whether the request's process would have imported what this one has."""
    names = {n for n in {*request.environment, *before} if n.startswith(_READ_AT_IMPORT)} - _CARRIED
    return all(request.environment.get(n) == before.get(n) for n in names)


def _tell(line: socket.socket, number: int) -> None:
    with suppress(OSError):
        line.sendall(b"%d\n" % number)


def _adopt(request: Request, files: list[int]) -> None:
    """Become the process that was asked for."""
    os.setpgid(0, 0)  # Ray signals a worker's whole group when it leaves
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    own = request.environment
    os.environ.clear()
    os.environ.update(own)
    os.chdir(request.cwd)
    direct = bool(own.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = _writer(1, direct or os.isatty(1))
    sys.stderr = sys.__stderr__ = _writer(2, True, "backslashreplace")
    sys.path[:0] = [p for p in own.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    random.seed()
    _settle_libraries(own)


def _writer(file: int, by_line: bool, errors: str | None = None) -> Any:
    return open(file, "w", 1 if by_line else -1, errors=errors, closefd=False)


def _settle_libraries(own: dict[str, str]) -> None:
    """Give libraries what they had read from this process's environment, or drawn in it."""
    import numpy as np
    import torch
    from huggingface_hub import constants

    np.random.seed()
    if threads := own.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    constants.HF_HUB_OFFLINE = own.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES


def run(request: Request) -> None:
    """Run what follows `python`: a file, `-m` and a module, or `-c` and a text, with its arguments."""
    first, *rest = request.arguments
    while first in ("-u", "-P"):
        first, *rest = rest
    if first == "-m":
        sys.argv = list(rest)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        code, sys.argv = rest[0], ["-c", *rest[1:]]
        own = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), own.__dict__)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def main() -> None:
    """Serve at the socket that the command line names; a fork comes out of it with its request, and runs that."""
    path = sys.argv[1]
    server = Server(path)
    server.serve()
    if server.asked:
        run(server.asked)
    else:
        shutil.rmtree(os.path.dirname(path), ignore_errors=True)
        os._exit(0)  # taking all those modules down would take a second


if __name__ == "__main__":
    main()
