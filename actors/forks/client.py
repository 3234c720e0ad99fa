"""Run by Ray in Python's place (`python -ISs client.py SOCKET ARGUMENTS…`): have the server fork, or become Python.

It stays until the fork has ended, passes signals on, and ends as the fork did; a fork does not outlive it. Nothing but the
standard library's smallest modules is imported: this process costs some 20 ms.
"""

import array
import json
import os
import signal
import socket
import sys

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


def main() -> None:
    """Ask, and become Python where nobody answers."""
    path, *arguments = sys.argv[1:]
    code = ask(path, arguments)
    if code is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
