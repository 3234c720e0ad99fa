"""Run in Python's place (`python client.py ARGUMENTS…`), or in that of Ray's `setup_worker.py`: have the server fork.

Where no server takes the request, it becomes what it stands for. It stays until the fork has ended, passes signals on, and
ends as the fork did; a fork does not outlive it. The server's socket is in the environment. Nothing but the standard
library's smallest modules is imported: this process costs some 30 ms, Ray's own script half a second.
"""

import array
import json
import os
import signal
import socket
import sys
from typing import Any

# variables: the server's socket, and Ray's own script
SOCKET, RAY_SCRIPT = "VINNOW_FORKS", "VINNOW_RAY_SCRIPT"
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# of a line that holds a number
_LONGEST = 64
# how long a server may take that imports yet: less than Ray waits for a worker
_SECONDS = 45


def ask(path: str, arguments: list[str]) -> int | None:
    """Return the fork's exit code, below 0 by a signal; None where no server took the request."""
    request = {"arguments": arguments, "cwd": os.getcwd(), "environment": dict(os.environ)}
    body = json.dumps(request).encode("utf-8", "surrogateescape")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_SECONDS)
        try:
            line.connect(path)
            files = array.array("i", [0, 1, 2])
            line.sendmsg([len(body).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
            line.sendall(body)
            replies = line.makefile("rb")
            pid = int(replies.readline(_LONGEST) or 0)
            line.settimeout(None)
        except (OSError, ValueError):
            return None
        if not pid:
            return None
        for number in _PASSED_ON:
            signal.signal(number, lambda n, _: os.kill(pid, n))
        for file in (0, 1, 2):  # the fork has them: who reads them is to see them end
            os.close(file)
        try:
            return int(replies.readline(_LONGEST))
        except (OSError, ValueError):  # the server has ended, and with it who knows
            return -signal.SIGKILL


def plain_worker(arguments: list[str]) -> list[str] | None:
    """Return a worker's command line of what Ray's script is told, after setting its variables; None: it wants more."""
    context, rest = dict[str, Any](), list[str]()
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--serialized-runtime-env-context":
            context = json.loads(value)
        elif name != "--language":
            rest.append(argument)
        elif value != "PYTHON":
            return None
    variables = {k: os.path.expandvars(v) for k, v in (context.pop("env_vars", None) or {}).items()}
    if context.pop("py_executable", None) not in (None, sys.executable) or any(context.values()):
        return None
    if any("${" in value for value in variables.values()):
        return None
    os.environ.update(variables)
    return rest


def main() -> None:
    """Ask, and become Python, or Ray's script, where nobody answers."""
    arguments, path, ray_script = sys.argv[1:], os.environ.pop(SOCKET, ""), os.environ.pop(RAY_SCRIPT, "")
    wanted = plain_worker(arguments) if ray_script else arguments
    code = ask(path, wanted) if path and wanted else None
    if code is None:
        os.execv(sys.executable, [sys.executable, *filter(None, [ray_script]), *arguments])
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
